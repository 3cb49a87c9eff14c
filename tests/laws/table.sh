# shellcheck shell=bash
# Law, line, test: see tests/laws/run.
law 1 "while the commit is unknown, legs that disagree are no answer" src/io/router.c \
    's/^(        return) \(source_result < 0\) != \(target_result < 0\) \? VERDICT_PARK : VERDICT_SOURCE;/\1 VERDICT_SOURCE;/' \
    unit disk 'disk/law_1_while*'
law 1 "while the commit is unknown, both legs are waited for" src/io/router.c \
    '/^    case MIRROR_COMMITTING:$/,/VERDICT_WAIT/ s/source_open \|\| target_open/source_open/' \
    unit disk 'disk/law_1_while*'
law 1 "only a mirror of which every region is routed is committed" src/io/mirror.c \
    's/(bool begun = mirror->phase == MIRROR_ATTACHED) && mirror->unrouted == 0/\1/' \
    unit disk 'disk/a_commit_waits_for_every_region'
law 1 "while the commit is unknown, writes go to both legs" src/io/router.c \
    's/^(    bool mirrored = phase == MIRROR_ATTACHED) \|\| phase == MIRROR_COMMITTING;/\1;/' \
    script commit-fault 'all, hang kept'
law 1 "a commit that failed is recorded again" src/migrate/switchover.c \
    's/^(        if \()error == -ECANCELED \|\| error == -EAGAIN\)$/\1error < 0)/' \
    script commit-fault 'passes, fail kept'
law 1 "a record counts once its reader has made it durable" src/catalog/store.c \
    's/^    if \(!error && has_jobs\(store\) &&$/    if (!error \&\& has_jobs(store) \&\& false \&\&/' \
    script commit-fault 'all, hang kept'
law 2 "a change waits for its mark" src/io/disk.c \
    's/^    return io->log->mark\(io->log, &io->mark\);/    return true;/' \
    unit marks 'marks/law_2_*'
law 2 "a copied region without a mark is marked first" src/migrate/marks.c \
    's/^    if \(request->touch != LOG_TOUCH && marks_next_unmarked.*$/    if (false)/' \
    unit marks 'marks/law_2_*'
law 3 "what counts is what was routed at the epoch's begin" src/migrate/marks_writer.c \
    's/^(    uint64_t regions = mirror_keep_routed\(.*;)$/    mirror_routed(marks->epoch, \&marks->pending);\n\1/' \
    unit marks 'marks/law_3_an_epoch_says*'
law 3 "what became dirty meanwhile does not count" src/migrate/marks_writer.c \
    's/mirror_keep_routed\(marks->epoch, &marks->pending\)/mirror_regions(marks->epoch)/' \
    unit marks 'marks/law_3_what_became*'
law 3 "an epoch waits for what was sent before it" src/migrate/marks.c \
    's/^    bool all = marks->in_flight\[.*;/    bool all = true;/' \
    unit marks 'marks/law_3_an_epoch_waits*'
law 3 "a mark stays while it is used" src/migrate/marks_writer.c \
    '/^static int write_epoch/,/^}/ s/^    keep_used\(marks, &kept\);//' \
    unit marks 'marks/law_3_a_mark*'
law 3 "what is marked is copied again" src/migrate/marks.c \
    's/^            agreed.words\[i\] &= ~marks->state.marked.words\[i\];/            continue;/' \
    unit marks 'marks/law_3_what_is_marked*'
law 3 "the marks are read when the target is attached, and not before" src/migrate/attempt.c \
    's/^    error = attach\(job, mirror\);$//; s/^(    uint64_t kept = .*marks_seed\(.*;)$/\1\n    error = attach(job, mirror);/' \
    unit resume 'resume/law_3_*'
law 4 "a touch is durable before the target is written" src/migrate/marks.c \
    's/^    return request->touch == LOG_MARK .*all_touched.*$/    return true;/' \
    unit marks 'marks/law_4_*'
law 4 "what was written through the mirror is known" src/io/mirror.c \
    '/^unsigned mirror_route/,/^}/ s/bits_set\(&mirror->touched, r\)/(void)r/' \
    unit disk 'disk/law_4_*'
law 5 "a write waits for an earlier one that overlaps" src/io/lock.c \
    's/(\[LOCK_MODE_WRITE\] = \{)\[LOCK_MODE_WRITE\] = true, (\[LOCK_MODE_COPY\] = true\})/\1\2/' \
    unit disk 'disk/law_5_*'
law 5 "the copier waits for a write" src/io/lock.c \
    's/(\[LOCK_MODE_COPY\] = \{)\[LOCK_MODE_WRITE\] = true, /\1/' \
    unit lock 'lock/modes'
law 5 "nothing is written to a target that was dropped" src/migrate/unit.c \
    's/^        if \(mirror_phase\(copier->options.mirror\) != MIRROR_ATTACHED\) \{/        if (false) {/' \
    unit copier 'copier/law_5_nothing*'
law 6 "what was given up on keeps its lock" src/io/disk.c \
    's/^    io->ghost = io->locked && io->lock.mode == LOCK_MODE_WRITE;/    unlock(io);/' \
    unit disk 'disk/law_6_a_ghost*'
law 6 "reads wait for what was given up on" src/io/disk.c \
    's/^(        return mirrored) \|\| atomic_load_explicit\(&io->disk->ghosts.*/\1;/' \
    unit disk 'disk/what_was_given_up_on*'
law 6 "a server's ghost is waited for" backends/nfs_image.c \
    's/(nfsds_ghost_until\(.*\);)$/0 * \1/' \
    unit nfs_image 'nfs_image/a_ghost_is_waited_for'
law 6 "the quiet time of a server that stands still begins again" backends/nfs_quiet.c \
    's/begin_again\(quiet, now/begin_again(quiet, 0 * now/' \
    unit nfs_image 'nfs_image/the_quiet_time*'
law 7 "a request with a leg on its way is not released" src/io/disk.c \
    '/^static void conclude/,/^}/ s/^    if \(!io->pending\)$/    if (true)/' \
    unit disk 'disk/law_13_and_7_*'
law 8 "a mirrored write is acknowledged by both" src/io/router.c \
    '/^enum verdict route_verdict/,/^}/ { /^    case MIRROR_ATTACHED:$/,/VERDICT_WAIT/ s/source_open \|\| target_open/source_open/ }' \
    unit disk 'disk/law_8_*'
law 9 "DONE is stored before the reply" fs/request.c \
    '/^static void answer/,/^}/ s/^    slot_done\(.*$//' \
    unit slots 'slots/what_was_done_is_answered_again*'
law 9 "a change of names is recorded with its result" src/catalog/records.c \
    '/^void record_applied/,/^}/ s/if \(origin\)/if (false)/' \
    unit deaths 'deaths/each_request_takes_effect_once'
law 10 "a write counts as durable only by the stamp of its own server's life" backends/unflushed.c \
    's/\(run->stamp == stamp && (\(run->debt >= mark \|\| run->number < mark\))\)/\1/' \
    unit nfs_image 'nfs_image/what_the_server_lost*'
law 10 "what a dead worker left is made durable at once" backends/nfs_open.c \
    's/^    if \(image->recommit_posted\)$/    if (false)/' \
    unit nfs_image 'nfs_image/what_a_dead_worker_left_is_committed_at_once'
law 10 "a loss that nobody waits for is told later" backends/nfs_flush.c \
    's/ && !list_empty\(&flush->served\)\)/)/' \
    unit nfs_image 'nfs_image/a_loss_waits*'
law 10 "another server is no loss to a file that owes nothing" backends/nfs_verifier.c \
    's/^        place->lost = place->inherited;/        place->lost = true;/' \
    unit nfs_verifier 'nfs_verifier/*'
law 10 "what is kept behind a replay is written again, too" backends/iscsi_cache.c \
    's/^    cache->again = cache->replaying;//' \
    unit iscsi_cache 'iscsi_cache/more_is_kept*'
law 11 "a verb that nobody decided breaks the build" src/io/io.h \
    's/^    VERB_READ,/    VERB_READ, VERB_NEWER,/' \
    compile
law 12 "a stray ENOSYS is another error" fs/request.c \
    's/^    if \(error == -ENOSYS\)/    if (false)/' \
    unit slots 'slots/law_12_*'
law 13 "a target's error drops the target" src/io/router.c \
    's/target_result < 0 \? VERDICT_DROP : VERDICT_SOURCE/target_result < 0 ? VERDICT_TARGET : VERDICT_SOURCE/' \
    unit disk 'disk/law_13_a_failing*'
law 13 "a hung target is dropped after its time" src/io/disk.c \
    's/^    if \(now - io->sent > mirror_target_timeout\(io->mirror\)\)/    if (false)/' \
    unit disk 'disk/law_13_and_7_*'
law 14 "a datastore that is stalled gets no more slots" fs/budget.c \
    '/^static bool refused/,/^}/ s/return budget_stalled\(.*\);/return false;/' \
    unit slots 'slots/a_flood*'
law 15 "no such file needs every datastore's word" src/catalog/catalog.c \
    's/catalog->unseen \? -EIO : -ENOENT/-ENOENT/' \
    unit catalog 'catalog/no_such_file*'
law 15 "a name is not made where nobody has looked" src/catalog/names.c \
    's/^        else if \(catalog->unseen\)/        else if (false)/' \
    unit catalog 'catalog/no_such_file*'
law 16 "a partial that may be the disk is not removed" src/catalog/jobs.c \
    's/^    if \(needed\)$/    if (false)/' \
    unit jobs 'jobs/*'
law 16 "the target is flushed before the commit" src/migrate/switchover.c \
    '/event\("switch-flush"\)/,/;$/ { /await_io/,/;$/d }; s/^    event\("switch-flush"\);.*$/    error = 0;/' \
    script faults
law 17 "a secret that others may read is refused" backends/iscsi_secret.c \
    's/^    if \(st.st_mode & 077\)/    if (false)/' \
    unit iscsi_secret 'iscsi_secret/others*'
