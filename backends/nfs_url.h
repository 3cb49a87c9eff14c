/* nfs_url: what the url of an NFS datastore says: nfs://host[:port]/export[/dir][?key=value&…]. Pure.
 *
 * port, or nfsport=, is the NFS server's; mountport= the mount daemon's; a port that is not said is asked of the
 * server's portmapper. uid= and gid= are who we are to the server (else the process's). connections= to the server, per
 * reactor. A host that is an IPv6 address stands in brackets. %XX in the path is one byte. */
#pragma once

#include <stdbool.h>

#include "base/error.h"

#define NFS_CONNECTIONS_MAX 8

struct nfsds_url {
    char host[256];
    char path[1024]; /* the export and what is below it; absolute, without a slash at its end ("/" alone: "") */
    int nfs_port, mount_port; /* 0: ask the portmapper */
    long uid, gid;            /* -1: not said */
    unsigned connections;     /* 0: not said */
};

/* rest: what follows "nfs:". 0, or -EINVAL with the sentence, which names the datastore. */
int nfsds_url_parse(struct nfsds_url *out, const char *name, const char *rest, struct sentence *why);
