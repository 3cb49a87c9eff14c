/* The url of a LUN: iscsi://[user@]portal[:port]/iqn/lun[?key=value&…], with a portal that is a name, an IPv4 address or
 * an IPv6 address in brackets. Percent-escapes (%3A) are understood in each part. Keys: initiator (the name that the
 * target sees), header_digest (yes | no). */
#pragma once

#include <stdbool.h>

#include "base/error.h"

#define LUN_NAME_MAX    223 /* of an iSCSI name, RFC 7143 section 4.2.7.1 */
#define LUN_NUMBER_MAX  16383
#define ISCSI_PORT      3260
#define LUN_PORTAL_SIZE 320

struct lun_url {
    char user[256]; /* empty: no CHAP */
    char host[256]; /* without brackets */
    unsigned port;
    char target[LUN_NAME_MAX + 1];
    unsigned lun;
    char initiator[LUN_NAME_MAX + 1]; /* empty: made of host and mount */
    bool header_digest;
};

/* rest: what follows "iscsi:". Pure. 0 or -EINVAL with a sentence that begins with "datastore NAME: ". */
int lun_url_parse(struct lun_url *out, const char *name, const char *rest, struct sentence *why);

/* As "host[:port][,group]", what a redirection names, instead of the portal that url has. False: it is none. */
bool lun_url_move(struct lun_url *url, const char *portal);

/* "host:port" as people write it. */
const char *lun_url_portal(const struct lun_url *url, char out[static LUN_PORTAL_SIZE]);

/* May block for as long as a name server takes. The turn-th address of the host as libiscsi takes it, always a numeric
 * one; turn counts through them all. 0 or -errno (-EADDRNOTAVAIL: the name is not known). */
int lun_url_resolve(const struct lun_url *url, unsigned turn, char out[static LUN_PORTAL_SIZE]);
/* True: lun_url_resolve does not block. */
bool lun_url_numeric(const struct lun_url *url);
