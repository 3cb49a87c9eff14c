/* nfs_connection: a reactor's own way to an NFS server: calls go in, answers come out, and whatever happens to the
 * socket in between is dealt with here. Each belongs to one reactor; all calls are made there. */
#pragma once

#include <sys/uio.h>

#include "backends/nfs_rpc.h"
#include "base/list.h"
#include "io/reactor.h"

struct nfs;
struct nfsds_connection;

/* One call. Embedded in its owner, which keeps it, its arguments and a WRITE's data until it is answered. */
struct nfsds_call {
    /* set by the caller */
    enum nfsds_procedure procedure;
    void *arguments;
    /* Of a READ and a WRITE, unless iov_count is 0: where its data goes or comes from, from byte skip on. Else a WRITE's is
     * the arguments', a READ's comes with the answer. */
    const struct iovec *iov;
    int iov_count;
    uint64_t skip;
    /* Once, on the reactor; never from within nfsds_connection_call. data: the XXX3res, while answered runs; NULL with
     * error: the server did not understand the call, or it could not be sent. */
    void (*answered)(struct nfsds_call *call, int error, void *data);
    /* the connection's */
    struct list link;
    struct task task;
    struct nfsds_connection *connection;
    uint32_t number; /* on the wire */
    uint64_t sent;   /* when, last; 0: it waits */
    uint64_t server; /* the write verifier of the server's process that a ghost of it may be with; 0: unknown */
    unsigned sends;  /* more than 1: it was sent before on a connection that died, and may land once more (law 6) */
    bool abandoned;
    int error;
};

/* The reactor's connection that has the least to do; it is made when there is none. NULL: no memory. */
struct nfsds_connection *nfsds_connection_of(struct nfs *nfs, struct reactor *reactor);

/* Sends, now or when the server is there (again), as often as it takes. Never blocks. */
void nfsds_connection_call(struct nfsds_connection *connection, struct nfsds_call *call);

/* Not wanted any more. True: it is out, answered is never called. False: it was sent; answered is called once, when
 * its answer comes or its connection dies. Its arguments may go in both cases. */
bool nfsds_connection_abandon(struct nfsds_call *call);

/* Its answer bore this write verifier: the process at the other end of the connection. */
void nfsds_connection_verifier(const struct nfsds_call *call, uint64_t stamp);

/* Frees all of a datastore. Nothing is in flight, or nothing that was is ever answered. Not from a reactor's thread. */
void nfsds_connections_close(struct nfs *nfs);
