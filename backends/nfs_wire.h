/* nfs_wire: calls and answers as the bytes of a TCP connection (RFC 5531). Many calls leave by one system call and many
 * answers come by one; a large WRITE goes out from its owner's memory and a large READ comes into it, without a copy.
 * Belongs to its connection: one thread. */
#pragma once

#include "backends/nfs_codec.h"
#include "base/list.h"

struct nfsds_call;
struct nfsds_wire;

struct nfsds_wire_owner {
    uint32_t uid, gid;
    uint32_t number;   /* of the first call: a server may know calls by their numbers */
    struct list *sent; /* of struct nfsds_call.link: all that were queued and are not answered */
    /* error: the server did not understand the call, or its answer makes no sense. data: the XXX3res, meanwhile. */
    void (*answered)(struct nfsds_call *call, int error, void *data);
};

/* NULL: no memory. */
struct nfsds_wire *nfsds_wire_new(const struct nfsds_wire_owner *owner);
/* What is not sent yet is never sent. NULL is fine. */
void nfsds_wire_free(struct nfsds_wire *wire);

/* To be sent. Its data must stay as it is until it is answered, given up or the wire freed. 0 or -errno: it is not
 * queued. */
int nfsds_wire_queue(struct nfsds_wire *wire, struct nfsds_call *call);
/* The call's data is not used any more. 0 or -ENOMEM: the connection must end. */
int nfsds_wire_disown(struct nfsds_wire *wire, const struct nfsds_call *call);

/* 0: all is sent; 1: the socket takes no more now; -errno. */
int nfsds_wire_send(struct nfsds_wire *wire, int fd);
/* Takes what has come; answered runs from within. 0 or -errno: the connection must end. */
int nfsds_wire_receive(struct nfsds_wire *wire, int fd);
