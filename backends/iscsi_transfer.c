/* Commands: SBC-3 READ (16), WRITE (16), WRITE SAME (16), SYNCHRONIZE CACHE (16), GET LBA STATUS. */
#include "backends/iscsi_transfer.h"

#include <stdlib.h>
#include <string.h>

#define ZERO_BYTES      (1u << 20)
#define ZERO_PIECES     4
#define MAP_DESCRIPTORS 32
#define MAP_BYTES       (8 + 16 * MAP_DESCRIPTORS)
#define SAME_UNMAP      0x08

static unsigned char zeroes[ZERO_BYTES]; /* never written */

struct piece {
    struct lun_request request;
    struct lun_transfer *transfer;
    struct extent extent;
    struct scsi_iovec iov[];
};

static struct lun_image *image_of(const struct lun_transfer *transfer)
{
    return transfer->session->image;
}

/* How many pieces of the transfer's memory [from, from + length) touches. */
static int count_iov(const struct lun_transfer *transfer, uint64_t from, uint64_t length)
{
    int count = 0;
    for (unsigned i = 0; i < transfer->iov_count && length > 0; i++) {
        uint64_t size = transfer->iov[i].iov_len;
        if (from >= size) {
            from -= size;
            continue;
        }
        length -= size - from < length ? size - from : length;
        from = 0;
        count++;
    }
    return count;
}

static void fill_iov(const struct lun_transfer *transfer, uint64_t from, uint64_t length, struct scsi_iovec *out)
{
    for (unsigned i = 0; i < transfer->iov_count && length > 0; i++) {
        uint64_t size = transfer->iov[i].iov_len;
        if (from >= size) {
            from -= size;
            continue;
        }
        uint64_t part = size - from < length ? size - from : length;
        *out++ = (struct scsi_iovec){(char *)transfer->iov[i].iov_base + from, part};
        length -= part;
        from = 0;
    }
}

static bool by_same(const struct lun_transfer *transfer)
{
    return transfer->verb == VERB_ZERO && !transfer->writes_zeroes;
}

static uint64_t piece_length(const struct lun_transfer *transfer)
{
    const struct lun *lun = &image_of(transfer)->lun;
    uint64_t rest = transfer->extent.end - transfer->next, most = lun->max_transfer;
    if (by_same(transfer))
        most = (uint64_t)(transfer->unmap ? lun->max_same_unmap : lun->max_same) * lun->block;
    else if (transfer->verb == VERB_MAP)
        most = rest;
    return rest < most ? rest : most;
}

/* Extents that unmap end at multiples of what the target unmaps together, so that none is cut in two. */
static uint64_t trim(const struct lun_transfer *transfer, uint64_t length)
{
    const struct lun *lun = &image_of(transfer)->lun;
    uint64_t whole = (uint64_t)lun->granularity * lun->block, end = transfer->next + length;
    if (!by_same(transfer) || !transfer->unmap || whole == 0 || end == transfer->extent.end || end % whole >= length)
        return length;
    return length - end % whole;
}

static void set_block_cdb(struct piece *piece, uint8_t opcode, uint8_t flags, uint32_t block)
{
    uint8_t *cdb = piece->request.cdb;
    piece->request.cdb_size = 16;
    cdb[0] = opcode;
    cdb[1] = flags;
    scsi_set_uint64(cdb + 2, piece->extent.start / block);
    scsi_set_uint32(cdb + 10, (uint32_t)(extent_length(piece->extent) / block));
}

static void set_data(struct piece *piece, enum scsi_xfer_dir direction, int iov_count, uint64_t length)
{
    piece->request.direction = direction;
    piece->request.iov = piece->iov;
    piece->request.iov_count = iov_count;
    piece->request.length = (uint32_t)length;
}

static void build(struct piece *piece, int iov_count)
{
    const struct lun_transfer *transfer = piece->transfer;
    uint32_t block = image_of(transfer)->lun.block;
    uint64_t length = extent_length(piece->extent);
    switch ((enum verb)transfer->verb) {
    case VERB_READ:
        set_block_cdb(piece, SCSI_OPCODE_READ16, 0, block);
        fill_iov(transfer, piece->extent.start - transfer->extent.start, length, piece->iov);
        set_data(piece, SCSI_XFER_READ, iov_count, length);
        return;
    case VERB_WRITE:
        set_block_cdb(piece, SCSI_OPCODE_WRITE16, 0, block);
        fill_iov(transfer, piece->extent.start - transfer->extent.start, length, piece->iov);
        set_data(piece, SCSI_XFER_WRITE, iov_count, length);
        return;
    case VERB_ZERO:
        if (by_same(transfer)) {
            set_block_cdb(piece, SCSI_OPCODE_WRITE_SAME16, transfer->unmap ? SAME_UNMAP : 0, block);
            length = block;
            piece->request.slow = true;
        } else {
            set_block_cdb(piece, SCSI_OPCODE_WRITE16, 0, block);
        }
        piece->iov[0] = (struct scsi_iovec){zeroes, length};
        set_data(piece, SCSI_XFER_WRITE, 1, length);
        return;
    case VERB_FLUSH:
        piece->extent = (struct extent){0, 0}; /* 0 blocks from 0 on: all */
        set_block_cdb(piece, SCSI_OPCODE_SYNCHRONIZECACHE16, 0, block);
        if (atomic_load(&image_of(transfer)->sync_short)) {
            piece->request.cdb[0] = SCSI_OPCODE_SYNCHRONIZECACHE10;
            piece->request.cdb_size = 10;
        }
        piece->request.slow = true;
        return;
    case VERB_MAP:
        set_block_cdb(piece, SCSI_OPCODE_SERVICE_ACTION_IN, SCSI_GET_LBA_STATUS, block);
        scsi_set_uint32(piece->request.cdb + 10, MAP_BYTES);
        piece->iov[0] = (struct scsi_iovec){piece->iov + 1, MAP_BYTES};
        set_data(piece, SCSI_XFER_READ, 1, MAP_BYTES);
        return;
    case VERB_ALLOCATE:
    case VERB_RESIZE:
        break;
    }
    abort();
}

/* Neighbours of the same kind are one answer. Anchored blocks (2) read as the unmapped ones (1) do. */
static void take_map(struct lun_transfer *transfer, const struct piece *piece)
{
    const uint8_t *data = piece->iov[0].iov_base;
    uint32_t block = image_of(transfer)->lun.block;
    uint64_t at = transfer->extent.start, size = scsi_get_uint32(data) + 4;
    transfer->data = true;
    for (uint64_t offset = 8; offset + 16 <= size && offset + 16 <= MAP_BYTES; offset += 16) {
        uint64_t start = scsi_get_uint64(data + offset) * block;
        uint64_t end = start + (uint64_t)scsi_get_uint32(data + offset + 8) * block;
        bool mapped = (data[offset + 12] & 0x0f) == 0;
        if (start > at || end <= at)
            break;
        if (at > transfer->extent.start && mapped != transfer->data)
            break;
        transfer->data = mapped;
        at = end;
        if (at >= transfer->extent.end)
            break;
    }
    if (at > transfer->extent.start && at < transfer->extent.end)
        transfer->extent.end = at;
}

static void advance(struct lun_transfer *transfer);

/* Each command by itself: a replay between two of them writes what the first has changed. */
static void keep(struct lun_transfer *transfer, const struct piece *piece)
{
    struct lun_cache *cache = &image_of(transfer)->cache;
    if (!piece->request.change || transfer->urgent || !cache->unflushed)
        return;
    const struct iovec *iov = transfer->verb == VERB_WRITE ? transfer->iov : NULL;
    if (unflushed_add_from(cache->unflushed, piece->extent, iov, iov ? transfer->iov_count : 0,
            piece->extent.start - transfer->extent.start, transfer->stamp) < 0) {
        transfer->unkept = true;
    } else if (atomic_load(&cache->stamp) != transfer->stamp) {
        lun_cache_lose(cache, transfer->session, false);
        lun_session_wake(transfer->session);
    }
}

static void ended(struct lun_request *request, struct lun_answer answer)
{
    struct piece *piece = container_of(request, struct piece, request);
    struct lun_transfer *transfer = piece->transfer;
    struct lun_image *image = image_of(transfer);
    int error = answer.verdict == LUN_DONE ? 0 : answer.error ? answer.error : -EIO;
    if (error == -EOPNOTSUPP && by_same(transfer)) {
        /* a form of the command that the target does not do after all: the rest is written */
        atomic_store(&image->no_same, true);
        error = transfer->result ? 0 : -ECANCELED;
    }
    if (error == -EOPNOTSUPP && transfer->verb == VERB_FLUSH && !atomic_exchange(&image->sync_short, true)) {
        error = 0;
        transfer->next = 0;
    }
    if (!error && transfer->verb == VERB_MAP)
        take_map(transfer, piece);
    if (!error && answer.verdict == LUN_DONE)
        keep(transfer, piece);
    if (!error && transfer->verb == VERB_READ && request->task->residual_status == SCSI_RESIDUAL_UNDERFLOW)
        error = -EIO;
    if (error && (!transfer->result || transfer->result == -ECANCELED))
        transfer->result = error;
    transfer->pieces--;
    transfer->owed += request->owed;
    free(piece);
    if (transfer->pieces == 0 && transfer->result == -ECANCELED) {
        transfer->result = 0;
        transfer->writes_zeroes = true;
        transfer->next = transfer->extent.start;
    }
    advance(transfer);
}

static bool send_piece(struct lun_transfer *transfer)
{
    uint64_t length = trim(transfer, piece_length(transfer));
    bool memory = transfer->verb == VERB_READ || transfer->verb == VERB_WRITE;
    int count = memory ? count_iov(transfer, transfer->next - transfer->extent.start, length) : 1;
    size_t extra = transfer->verb == VERB_MAP ? MAP_BYTES : 0;
    struct piece *piece = malloc(sizeof(*piece) + (size_t)count * sizeof(piece->iov[0]) + extra);
    if (!piece)
        return false;
    memset(piece, 0, sizeof(*piece));
    piece->transfer = transfer;
    piece->extent = (struct extent){transfer->next, transfer->next + length};
    piece->request.change = transfer->verb == VERB_WRITE || transfer->verb == VERB_ZERO;
    piece->request.urgent = transfer->urgent;
    piece->request.done = ended;
    build(piece, count);
    transfer->next += length;
    transfer->pieces++;
    lun_session_submit(transfer->session, &piece->request);
    return true;
}

static void advance(struct lun_transfer *transfer)
{
    unsigned most = transfer->verb == VERB_ZERO ? ZERO_PIECES : UINT16_MAX;
    bool once = transfer->verb == VERB_FLUSH;
    while (!transfer->result && (once ? transfer->next == 0 : transfer->next < transfer->extent.end) &&
           transfer->pieces < most) {
        if (!send_piece(transfer))
            transfer->result = -ENOMEM;
        if (once)
            transfer->next = 1;
    }
    if (transfer->pieces > 0)
        return;
    struct lun_session *session = transfer->session;
    unsigned owed = transfer->owed;
    transfer->owed = 0;
    transfer->done(transfer);
    for (; owed; owed--)
        if (lun_cache_paid(&session->image->cache))
            lun_session_wake_all(session->image);
}

/* done is never called from within: an io's end is a task of its own, and memory that is not there is rare. */
void lun_transfer_start(struct lun_transfer *transfer)
{
    struct lun_image *image = image_of(transfer);
    transfer->result = 0;
    transfer->pieces = 0;
    transfer->unkept = false;
    transfer->next = transfer->extent.start;
    transfer->writes_zeroes = transfer->verb == VERB_ZERO && (!image->lun.same || atomic_load(&image->no_same));
    if (transfer->verb == VERB_FLUSH) {
        transfer->extent = (struct extent){0, 0};
        transfer->next = 0;
    }
    if (!transfer->urgent)
        transfer->stamp = atomic_load(&image->cache.stamp);
    advance(transfer);
}

/* --- replay --- */

struct replay {
    struct lun_transfer transfer;
    struct unflushed_run run;
    struct iovec iov;
    uint64_t offset;
    int failed;
    bool found; /* in this pass */
};

#define REPLAY_MOST (32ull << 20)

static void replay_step(struct replay *replay);

static void replayed(struct lun_transfer *transfer)
{
    struct replay *replay = container_of(transfer, struct replay, transfer);
    struct unflushed *unflushed = image_of(transfer)->cache.unflushed;
    int result = transfer->result;
    if (!result)
        result = unflushed_add(unflushed, replay->run.extent, replay->run.memory ? &replay->iov : NULL,
            replay->run.memory ? 1 : 0, transfer->stamp);
    if (result)
        replay->failed = result;
    replay->offset = replay->run.extent.end;
    unflushed_put(unflushed, &replay->run);
    if (transfer->session->closing_asked)
        free(replay);
    else
        replay_step(replay);
}

static void replay_end(struct replay *replay)
{
    struct lun_session *session = replay->transfer.session;
    struct lun_image *image = session->image;
    if (lun_cache_end(&image->cache, replay->transfer.stamp, replay->failed)) {
        free(replay);
        lun_session_wake_all(image);
        return;
    }
    replay->offset = 0;
    replay->failed = 0;
    replay->transfer.stamp = atomic_load(&image->cache.stamp);
    replay_step(replay);
}

static void replay_step(struct replay *replay)
{
    struct lun_image *image = image_of(&replay->transfer);
    struct lun_transfer *transfer = &replay->transfer;
    if (!unflushed_lost(image->cache.unflushed, replay->offset, transfer->stamp, REPLAY_MOST, &replay->run)) {
        replay_end(replay);
        return;
    }
    replay->iov = (struct iovec){(void *)(uintptr_t)replay->run.memory, extent_length(replay->run.extent)};
    transfer->verb = replay->run.memory ? VERB_WRITE : VERB_ZERO;
    transfer->unmap = image->lun.unmap;
    transfer->extent = replay->run.extent;
    transfer->iov = &replay->iov;
    transfer->iov_count = 1;
    lun_transfer_start(transfer);
}

void lun_replay_begin(struct lun_session *session)
{
    struct lun_cache *cache = &session->image->cache;
    struct replay *replay = calloc(1, sizeof(*replay));
    if (!replay) {
        while (!lun_cache_end(cache, atomic_load(&cache->stamp), -ENOMEM))
            ; /* more was lost just now: the next flush tells of it, too */
        lun_session_wake_all(session->image);
        return;
    }
    replay->transfer = (struct lun_transfer){
        .session = session, .done = replayed, .urgent = true, .stamp = atomic_load(&cache->stamp)};
    replay_step(replay);
}
