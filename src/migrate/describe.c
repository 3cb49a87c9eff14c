/* What a job tells of itself: the progress line. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "migrate/inside.h"

struct figures {
    uint64_t done, total, kept, copied, skipped, mirrored, reads, verified, differences, elapsed_ns, copying_ns;
    uint64_t steady, steady_ns; /* bytes, and the time that they took, since it has come to its pace; 0: not yet */
    unsigned files;
};

/* Under the job's mutex, so that the copier stays. The mirror's lock is not taken under it (its hooks take the other
 * order). */
static void measure(struct job *job, struct figures *out)
{
    struct copier_progress progress = job->copier ? copier_progress(job->copier) : job->copied_total;
    *out = (struct figures){.total = job->total,
        .kept = job->kept,
        .copied = progress.copied,
        .skipped = progress.skipped,
        .mirrored = job->mirror ? mirror_written(job->mirror) : job->mirrored_total,
        .reads = job->reads_total + (job->mirror ? mirror_reads(job->mirror) : 0)};
    struct verifier_progress compared = job->verified_total;
    if (job->verifier) {
        compared = verifier_progress(job->verifier);
        compared.differences += job->verified_total.differences;
    }
    out->verified = compared.verified;
    out->differences = compared.differences;
    uint64_t now = job->ended || job->took_ns ? job->started + job->took_ns : clock_now();
    out->elapsed_ns = job->started ? now - job->started : 0;
    if (job->copier && progress.steady_at && now > progress.steady_at) {
        out->steady = progress.copied + progress.skipped - progress.steady;
        out->steady_ns = now - progress.steady_at;
    }
    out->copying_ns = job->copying_since && now > job->copying_since ? now - job->copying_since : 0;
}

void job_describe(struct job *job, struct job_result *out)
{
    job_describe_as(job, job_state(job), out);
}

static void measure_one(struct job *job, enum job_state state, struct figures *f)
{
    pthread_mutex_lock(&job->mutex);
    measure(job, f);
    struct mirror *mirror = job->mirror ? mirror_get(job->mirror) : NULL;
    pthread_mutex_unlock(&job->mutex);

    if (state == JOB_DONE || state == JOB_RESCUED || (state == JOB_SWITCHING && !mirror)) /* committed; tidying up */
        f->done = f->total;
    else if (mirror)
        f->done = (mirror_regions(mirror) - mirror_unrouted(mirror)) * REGION_SIZE;
    if (f->done > f->total)
        f->done = f->total;
    mirror_put(mirror);
}

/* The members' sum; those that were unlinked do not count. */
static void measure_members(struct job *job, struct figures *sum)
{
    for (size_t i = 0;; i++) {
        struct figures f = {0};
        pthread_mutex_lock(&job->mutex);
        struct job *member = i < job->member_count ? job->members[i] : NULL;
        pthread_mutex_unlock(&job->mutex);
        if (!member)
            return;
        enum job_state state = job_state(member);
        if (state == JOB_CANCELLED)
            continue;
        measure_one(member, state, &f);
        sum->done += f.done;
        sum->total += f.total;
        sum->kept += f.kept;
        sum->copied += f.copied;
        sum->skipped += f.skipped;
        sum->mirrored += f.mirrored;
        sum->reads += f.reads;
        sum->verified += f.verified;
        sum->differences += f.differences;
        sum->files++;
    }
}

void job_describe_as(struct job *job, enum job_state state, struct job_result *out)
{
    struct figures f = {0};
    char files[32] = "", compared[80] = "", rescued[80] = "";
    measure_one(job, state, &f);
    if (job->directory) {
        measure_members(job, &f);
        snprintf(files, sizeof(files), "files=%u ", f.files);
    }
    if (job->request.verify)
        snprintf(
            compared, sizeof(compared), "verified=%" PRIu64 " differences=%" PRIu64 " ", f.verified, f.differences);
    if (f.reads)
        snprintf(rescued, sizeof(rescued), "target_reads=%" PRIu64 " ", f.reads);
    pthread_mutex_lock(&job->mutex);
    if (job->request.rescue)
        snprintf(strchr(rescued, '\0'), 32, "lost=%" PRIu64 " ", job->lost);
    uint64_t pause_us = job->pause_ns / NS_PER_US;
    snprintf(out->error, sizeof(out->error), "%s", job->error.text);
    pthread_mutex_unlock(&job->mutex);
    double percent = f.total                                     ? 100.0 * (double)f.done / (double)f.total
                     : state == JOB_DONE || state == JOB_RESCUED ? 100.0
                                                                 : 0.0;
    double rate = f.steady       ? (double)f.steady * 1e9 / (double)f.steady_ns
                  : f.copying_ns ? (double)(f.done - (f.kept < f.done ? f.kept : f.done)) * 1e9 / (double)f.copying_ns
                                 : 0;
    uint64_t eta = rate >= 1 && state < JOB_DONE ? (uint64_t)((double)(f.total - f.done) / rate) : 0;
    snprintf(out->line, sizeof(out->line),
        "state=%s percent=%.1f copied=%" PRIu64 " skipped=%" PRIu64 " kept=%" PRIu64 " mirrored=%" PRIu64
        " total=%" PRIu64 " rate=%" PRIu64 " eta=%" PRIu64 " %s%s%selapsed_ms=%" PRIu64 " pause_us=%" PRIu64
        " source=%s target=%s",
        job_state_name(state), percent, f.copied, f.skipped, f.kept, f.mirrored, f.total, (uint64_t)rate, eta, files,
        compared, rescued, (uint64_t)(f.elapsed_ns / NS_PER_MS), pause_us, job_source(job)->name,
        job_target(job)->name);
}

int job_set_rate(struct job *job, uint64_t rate)
{
    pthread_mutex_lock(&job->mutex);
    int error = job->state >= JOB_DONE ? -EINVAL : 0;
    if (error == 0) {
        job->rate = rate;
        if (job->copier)
            copier_set_rate(job->copier, rate);
        if (job->verifier)
            verifier_set_rate(job->verifier, rate);
    }
    pthread_mutex_unlock(&job->mutex);
    return error;
}
