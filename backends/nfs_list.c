/* A directory is read in pages, as a whole before the first entry is told: the caller may take its time with each, and
 * a directory that changed under the reading is read again from its start without telling anything twice. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backends/nfs.h"

#define NAMES_BYTES 8192
#define PAGE_BYTES  (32 << 10)
#define READINGS    5

struct entry {
    char *name;
    struct stat st;
    bool attributes;
};

struct listing {
    struct entry *entries;
    size_t count, room;
    uint64_t cookie;
    cookieverf3 verifier;
    bool end, no_memory;
};

static void add(struct listing *listing, const struct entryplus3 *from)
{
    if (listing->count == listing->room) {
        size_t room = listing->room ? 2 * listing->room : 64;
        struct entry *entries = realloc(listing->entries, room * sizeof(*entries));
        listing->no_memory = listing->no_memory || !entries;
        if (!entries)
            return;
        listing->entries = entries;
        listing->room = room;
    }
    struct entry *entry = &listing->entries[listing->count];
    entry->name = strdup(from->name);
    listing->no_memory = listing->no_memory || !entry->name;
    if (!entry->name)
        return;
    entry->attributes = from->name_attributes.attributes_follow;
    if (entry->attributes)
        nfsds_rpc_stat(&from->name_attributes.post_op_attr_u.attributes, &entry->st);
    listing->count++;
}

static void take_page(void *out, const void *data)
{
    const struct READDIRPLUS3resok *page = &((const struct READDIRPLUS3res *)data)->READDIRPLUS3res_u.resok;
    struct listing *listing = out;
    uint64_t before = listing->cookie;
    memcpy(listing->verifier, page->cookieverf, sizeof(listing->verifier));
    struct entryplus3 entry;
    for (const void *at = page->reply.entries; at; at = entry.nextentry) {
        memcpy(&entry, at, sizeof(entry)); /* libnfs does not align it */
        listing->cookie = entry.cookie;
        if (strcmp(entry.name, ".") != 0 && strcmp(entry.name, "..") != 0 && !strchr(entry.name, '/'))
            add(listing, &entry);
    }
    listing->end = page->reply.eof || listing->cookie == before;
}

static void forget(struct listing *listing)
{
    for (size_t i = 0; i < listing->count; i++)
        free(listing->entries[i].name);
    free(listing->entries);
    memset(listing, 0, sizeof(*listing));
}

static int read_pages(struct nfs *nfs, const struct nfsds_handle *directory, struct listing *listing)
{
    while (!listing->end) {
        struct READDIRPLUS3args arguments = {
            .dir = nfsds_fh(directory), .cookie = listing->cookie, .dircount = NAMES_BYTES, .maxcount = PAGE_BYTES};
        memcpy(arguments.cookieverf, listing->verifier, sizeof(listing->verifier));
        int error = nfsds_ask(nfs, NFS_READDIRPLUS, &arguments, take_page, listing, NULL);
        if (error || listing->no_memory)
            return error ? error : -ENOMEM;
    }
    return 0;
}

static int tell(
    struct nfs *nfs, const struct nfsds_handle *directory, struct listing *listing, nfsds_entry *entry, void *argument)
{
    for (size_t i = 0; i < listing->count; i++) {
        struct entry *found = &listing->entries[i];
        struct nfsds_object object;
        if (!found->attributes) {
            int error = nfsds_look(nfs, directory, found->name, &object);
            if (error == -ENOENT)
                continue;
            if (error)
                return error;
            found->st = object.st;
        } else {
            nfsds_sidecar_overlay(&nfs->sidecar, &found->st);
        }
        int stop = entry(argument, found->name, &found->st);
        if (stop)
            return stop;
    }
    return 0;
}

int nfsds_list(struct nfs *nfs, const struct nfsds_handle *directory, nfsds_entry *entry, void *argument)
{
    struct listing listing = {0};
    int error = -EAGAIN;
    for (unsigned i = 0; i < READINGS && error == -EAGAIN; i++) {
        forget(&listing);
        error = read_pages(nfs, directory, &listing);
    }
    if (!error)
        error = tell(nfs, directory, &listing, entry, argument);
    forget(&listing);
    return error == -EAGAIN ? -EIO : error;
}
