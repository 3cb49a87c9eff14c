#include "catalog/scan.h"

#include <string.h>

/* What the claims of one path amount to. */
struct tally {
    const struct claim *file, *first;
    unsigned files, directories;
    uint64_t bits;       /* directories: where */
    bool file_away;      /* the recorded file's datastore was not read */
    bool directory_away; /* a datastore that carries the recorded directory was not read */
};

static bool is_explained(const struct claim *claim, const struct entry *entry, const struct job *job)
{
    /* The old file of a committed move, on its way out. */
    return entry && job && job->record.state == JOB_RECORD_COMMITTED && entry->datastore == job->record.target &&
           claim->datastore == job->record.source && S_ISREG(claim->st.st_mode);
}

static void count(const struct catalog *catalog, uint64_t scanned, const struct claim *claims,
    const struct entry *entry, const struct job *job, struct tally *tally)
{
    *tally = (struct tally){0};
    for (const struct claim *claim = claims; claim; claim = claim->next) {
        uint64_t bit = catalog_bit(catalog, claim->datastore);
        if (!(scanned & bit) || is_explained(claim, entry, job))
            continue;
        if (S_ISDIR(claim->st.st_mode)) {
            tally->directories++;
            tally->bits |= bit;
        } else if (tally->files++ == 0) {
            tally->file = claim;
        }
        if (!tally->first)
            tally->first = claim;
    }
    if (!entry || entry->trouble == TROUBLE_ABSENT)
        return;
    if (entry_is_directory(entry))
        tally->directory_away = (entry->carriers & catalog_configured(catalog) & ~scanned) != 0;
    else
        tally->file_away = !(scanned & catalog_bit(catalog, entry->datastore));
}

static const struct claim *claim_at(const struct claim *claims, unsigned datastore)
{
    while (claims && claims->datastore != datastore)
        claims = claims->next;
    return claims;
}

static void be_conflict(
    const struct claim *claims, const struct entry *entry, const struct tally *tally, struct decision *out)
{
    out->verdict = DECIDE_BE;
    if (!entry || entry->trouble == TROUBLE_ABSENT) {
        out->claim = tally->file ? tally->file : tally->first;
        out->datastore = out->claim->datastore;
        out->trouble = TROUBLE_AMBIGUOUS;
        out->replace = entry != NULL;
        return;
    }
    const struct claim *own = claim_at(claims, entry->datastore);
    bool stands = own ? S_ISDIR(own->st.st_mode) == entry_is_directory(entry)
                      : tally->file_away || tally->directory_away;
    out->claim = stands ? own : NULL;
    out->datastore = entry->datastore;
    out->carriers = entry->carriers;
    out->trouble = stands && entry->trouble != TROUBLE_AMBIGUOUS ? TROUBLE_CONFLICT : TROUBLE_AMBIGUOUS;
}

static void be_directory(const struct catalog *catalog, uint64_t scanned, const struct claim *claims,
    const struct entry *entry, const struct tally *tally, struct decision *out)
{
    bool recorded = entry && entry_is_directory(entry);
    uint64_t carriers = tally->bits | (recorded ? entry->carriers & ~scanned : 0);
    unsigned home = recorded ? entry->datastore : catalog->default_datastore;
    if (!(carriers & catalog_bit(catalog, home)))
        home = catalog->default_datastore;
    for (unsigned i = 0; !(carriers & catalog_bit(catalog, home)) && i < catalog->count; i++)
        if (carriers & catalog_bit(catalog, i))
            home = i;
    out->verdict = DECIDE_BE;
    out->datastore = home;
    out->carriers = carriers;
    out->replace = entry && !recorded;
    const struct claim *claim = claim_at(claims, home);
    out->claim = claim && (scanned & catalog_bit(catalog, home)) ? claim : recorded ? NULL : tally->first;
}

static bool is_other(const struct entry *entry, const struct claim *claim)
{
    if ((entry->st.st_mode & S_IFMT) != (claim->st.st_mode & S_IFMT))
        return true;
    return entry->content && claim->content && strcmp(entry->content, claim->content) != 0;
}

void decide(const struct catalog *catalog, uint64_t scanned, const struct claim *claims, const struct entry *entry,
    const struct job *job, struct decision *out)
{
    struct tally tally;
    memset(out, 0, sizeof(*out));
    count(catalog, scanned, claims, entry, job, &tally);
    unsigned files = tally.files + tally.file_away;
    bool directory = tally.directories || tally.directory_away;
    if ((files && directory) || files > 1) {
        be_conflict(claims, entry, &tally, out);
    } else if (directory) {
        be_directory(catalog, scanned, claims, entry, &tally, out);
    } else if (tally.files == 1) {
        out->verdict = DECIDE_BE;
        out->claim = tally.file;
        out->datastore = tally.file->datastore;
        out->replace = entry && is_other(entry, tally.file);
    } else if (tally.file_away || (entry && entry->trouble == TROUBLE_ABSENT)) {
        out->verdict = DECIDE_KEEP;
        out->trouble = entry->trouble == TROUBLE_ABSENT ? TROUBLE_ABSENT : TROUBLE_NONE;
    } else {
        out->verdict = DECIDE_GONE;
    }
}
