/* The type is Write Exclusive – All Registrants. Write exclusive: others may read, as they must to see whose the LUN is
 * (the owner's record), to check a volume or to take a backup. All registrants: each session of the mount is a nexus of
 * its own that comes and goes, and the reservation must not hang on one of them; it lives as long as one is registered.
 *
 * The price is that whoever registers may write. So nobody registers blindly: before a nexus registers it looks whether
 * the mount's key is still there, and after it, before it writes, whether another's has come; a mount that was put aside
 * stays aside. Who takes over registers first, preempts next and looks last, so that of two at most one goes on.
 *
 * Not done: registrations through several ports of a target (each mount uses one portal), APTPL (registrations that
 * outlive the target's power; without them a target that restarts is reserved again by the mount that comes first). */
#include "backends/iscsi_reserve.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "backends/iscsi_image.h"
#include "base/clock.h"
#include "base/log.h"

#define RELEASE_NS     (3 * NS_PER_S)
#define TAKEOVER_TRIES 50 /* 5 s: longer than a login takes on a busy machine */
#define TYPE           SCSI_PERSISTENT_RESERVE_TYPE_WRITE_EXCLUSIVE_ALL_REGISTRANTS

struct lun_keys lun_keys_decode(const uint8_t *data, uint32_t size, uint64_t key)
{
    struct lun_keys keys = {0};
    uint64_t end = size >= 8 ? 8ull + scsi_get_uint32(data + 4) : 0;
    for (uint64_t at = 8; at + 8 <= size && at + 8 <= end; at += 8) {
        uint64_t found = scsi_get_uint64(data + at);
        if (found == key) {
            keys.ours++;
        } else {
            keys.others++;
            keys.other = found;
        }
    }
    return keys;
}

unsigned lun_reservation_decode(const uint8_t *data, uint32_t size)
{
    return size >= 24 && scsi_get_uint32(data + 4) >= 16 ? data[21] & 0xf : 0;
}

void lun_reserve_in(uint8_t cdb[static 16], unsigned action, uint32_t size)
{
    memset(cdb, 0, 16);
    cdb[0] = SCSI_OPCODE_PERSISTENT_RESERVE_IN;
    cdb[1] = (uint8_t)action;
    scsi_set_uint16(cdb + 7, (uint16_t)size);
}

void lun_reserve_out(
    uint8_t cdb[static 16], uint8_t list[static LUN_RESERVE_LIST], unsigned action, uint64_t key, uint64_t action_key)
{
    memset(cdb, 0, 16);
    cdb[0] = SCSI_OPCODE_PERSISTENT_RESERVE_OUT;
    cdb[1] = (uint8_t)action;
    cdb[2] = TYPE;
    scsi_set_uint32(cdb + 5, LUN_RESERVE_LIST);
    memset(list, 0, LUN_RESERVE_LIST);
    scsi_set_uint64(list, key);
    scsi_set_uint64(list + 8, action_key);
}

void lun_reserve_lost(struct lun_image *image)
{
    if (!atomic_exchange(&image->taken, true))
        log_error(
            "datastore %s: another has taken the reservation of LUN %u of %s; this mount writes nothing more to it",
            image->account.name, image->account.url.lun, image->account.url.target);
}

/* --- a session's nexus, on its reactor --- */

bool lun_register_next(struct lun_session *session)
{
    struct lun_image *image = session->image;
    struct lun_request *probe = &session->probe;
    uint64_t key = atomic_load(&image->key);
    if (key == 0 || (atomic_load(&image->taken) && session->step != LUN_REGISTER_UNDO))
        return false;
    probe->cdb_size = 10;
    probe->iov = &session->probe_iov;
    probe->iov_count = 1;
    probe->direction = SCSI_XFER_WRITE;
    probe->length = LUN_RESERVE_LIST;
    switch (session->step) {
    case LUN_REGISTER_LOOK:
    case LUN_REGISTER_LOOK_AGAIN:
        lun_reserve_in(probe->cdb, SCSI_PERSISTENT_RESERVE_READ_KEYS, LUN_RESERVE_KEYS);
        memset(session->probe_data, 0, sizeof(session->probe_data));
        probe->direction = SCSI_XFER_READ;
        probe->length = LUN_RESERVE_KEYS;
        break;
    case LUN_REGISTER_SET:
        lun_reserve_out(
            probe->cdb, session->probe_data, SCSI_PERSISTENT_RESERVE_REGISTER_AND_IGNORE_EXISTING_KEY, 0, key);
        break;
    case LUN_REGISTER_RESERVE:
        lun_reserve_out(probe->cdb, session->probe_data, SCSI_PERSISTENT_RESERVE_RESERVE, key, 0);
        break;
    case LUN_REGISTER_UNDO:
        lun_reserve_out(probe->cdb, session->probe_data, SCSI_PERSISTENT_RESERVE_REGISTER, key, 0);
        break;
    case LUN_REGISTER_END:
        return false;
    }
    session->probe_iov = (struct scsi_iovec){session->probe_data, probe->length};
    return true;
}

void lun_register_answered(struct lun_session *session, struct lun_answer answer)
{
    struct lun_image *image = session->image;
    uint64_t key = atomic_load(&image->key);
    struct lun_keys keys = lun_keys_decode(session->probe_data, LUN_RESERVE_KEYS, key);
    bool good = answer.verdict == LUN_DONE;
    /* Only our key is there: whether the reservation is made anew or was there already is the next write's to tell. */
    if (session->step == LUN_REGISTER_RESERVE)
        good = true;
    if (!good && session->step != LUN_REGISTER_UNDO) {
        if (answer.verdict == LUN_CONFLICT)
            lun_reserve_lost(image);
        session->step = LUN_REGISTER_END;
        return;
    }
    switch (session->step) {
    case LUN_REGISTER_LOOK: /* no key at all: the target has forgotten them */
        session->step = LUN_REGISTER_SET;
        if (keys.others > 0 && keys.ours == 0) {
            lun_reserve_lost(image);
            session->step = LUN_REGISTER_END;
        }
        return;
    case LUN_REGISTER_SET:
        session->step = LUN_REGISTER_LOOK_AGAIN;
        return;
    case LUN_REGISTER_LOOK_AGAIN:
        session->step = LUN_REGISTER_RESERVE;
        if (keys.others > 0) {
            lun_reserve_lost(image);
            session->step = LUN_REGISTER_UNDO;
        }
        return;
    case LUN_REGISTER_RESERVE:
        session->registered = key;
        session->step = LUN_REGISTER_END;
        return;
    case LUN_REGISTER_UNDO:
    case LUN_REGISTER_END:
        session->step = LUN_REGISTER_END;
        return;
    }
}

/* --- blocking --- */

static int read_keys(struct lun_talk *talk, uint64_t key, struct lun_keys *keys)
{
    uint8_t data[LUN_RESERVE_KEYS] = {0};
    struct lun_command command = {.cdb_size = 10, .in = data, .length = sizeof(data)};
    lun_reserve_in(command.cdb, SCSI_PERSISTENT_RESERVE_READ_KEYS, sizeof(data));
    int error = lun_talk_command(talk, &command);
    if (!error)
        *keys = lun_keys_decode(data, command.moved, key);
    return error;
}

static int reserve_out(struct lun_talk *talk, unsigned action, uint64_t key, uint64_t action_key)
{
    uint8_t list[LUN_RESERVE_LIST];
    struct lun_command command = {.cdb_size = 10, .out = list, .length = sizeof(list)};
    lun_reserve_out(command.cdb, list, action, key, action_key);
    return lun_talk_command(talk, &command);
}

static int read_reservation(struct lun_talk *talk, unsigned *type)
{
    uint8_t data[LUN_RESERVE_LIST] = {0};
    struct lun_command command = {.cdb_size = 10, .in = data, .length = sizeof(data)};
    lun_reserve_in(command.cdb, SCSI_PERSISTENT_RESERVE_READ_RESERVATION, sizeof(data));
    int error = lun_talk_command(talk, &command);
    *type = error ? 0 : lun_reservation_decode(data, command.moved);
    return error;
}

/* An all-registrants reservation is preempted as a whole, by the key 0 (SPC-4 5.13.11.4.3): this nexus then holds it. The
 * keys one by one would do, too, but for tgt: it frees the holder's registration, goes on looking at it, and may refuse
 * everybody from then on. */
static int put_aside(struct lun_talk *talk, uint64_t key, uint64_t other)
{
    unsigned type;
    int error = read_reservation(talk, &type);
    if (error)
        return error;
    if (type == TYPE || type == SCSI_PERSISTENT_RESERVE_TYPE_EXCLUSIVE_ACCESS_ALL_REGISTRANTS)
        other = 0;
    error = reserve_out(talk, SCSI_PERSISTENT_RESERVE_PREEMPT_AND_ABORT, key, other);
    if (error == -EOPNOTSUPP)
        error = reserve_out(talk, SCSI_PERSISTENT_RESERVE_PREEMPT, key, other);
    return error;
}

static int occupied(struct lun_image *image, uint64_t other, struct sentence *why)
{
    return refuse(why, -EBUSY,
        "datastore %s: LUN %u of %s is reserved by another, with the key %016" PRIx64
        "; end that one first, or take it over (--takeover) once it is sure that its host is dead",
        image->account.name, image->account.url.lun, image->account.url.target, other);
}

/* Puts aside all that have a key, and reserves. *keys: as they are then. -EBUSY: another has it. */
static int put_all_aside(struct lun_talk *talk, struct lun_image *image, uint64_t key, struct lun_keys *keys)
{
    enum { ROUNDS = 64 };
    int error = 0;
    for (unsigned i = 0; !error && keys->others > 0 && i < ROUNDS; i++) {
        log_warning(
            "datastore %s: the reservation of the key %016" PRIx64 " is put aside", image->account.name, keys->other);
        error = put_aside(talk, key, keys->other);
        if (error == -EBUSY) /* it has gone by itself */
            error = 0;
        if (!error)
            error = read_keys(talk, key, keys);
    }
    if (!error)
        error = reserve_out(talk, SCSI_PERSISTENT_RESERVE_RESERVE, key, 0);
    if (error && error != -EBUSY)
        return error;
    int again = read_keys(talk, key, keys);
    return again ? again : keys->others > 0 ? -EBUSY : error;
}

static int reserve_by(struct lun_talk *talk, struct lun_image *image, uint64_t key, bool takeover, struct sentence *why)
{
    struct lun_keys keys = {0};
    int error = read_keys(talk, key, &keys);
    if (error)
        return refuse(why, error, "datastore %s: LUN %u of %s knows no persistent reservations (%s)",
            image->account.name, image->account.url.lun, image->account.url.target, error_text(error));
    if (keys.others > 0 && !takeover)
        return occupied(image, keys.other, why);
    error = reserve_out(talk, SCSI_PERSISTENT_RESERVE_REGISTER_AND_IGNORE_EXISTING_KEY, 0, key);
    if (!error)
        error = put_all_aside(talk, image, key, &keys);
    /* A session of the other's that was just logging in registers, sees us, and goes: until then it is put aside again. */
    for (unsigned i = 0; error == -EBUSY && takeover && i < TAKEOVER_TRIES; i++) {
        nanosleep(&(struct timespec){.tv_nsec = (long)(100 * NS_PER_MS)}, NULL);
        error = put_all_aside(talk, image, key, &keys);
    }
    if (error == -EBUSY) {
        reserve_out(talk, SCSI_PERSISTENT_RESERVE_REGISTER, key, 0);
        return occupied(image, keys.other, why);
    }
    if (error)
        return refuse(why, error, "datastore %s: LUN %u of %s cannot be reserved: %s", image->account.name,
            image->account.url.lun, image->account.url.target, error_text(error));
    return 0;
}

int lun_reserve(struct image *base, uint64_t key, bool takeover, struct sentence *why)
{
    struct lun_image *image = lun_image_of(base);
    struct lun_talk talk;
    int error = lun_image_talk(image, &talk, why);
    if (error)
        return error;
    error = reserve_by(&talk, image, key, takeover, why);
    if (!error) {
        atomic_store(&image->taken, false);
        atomic_store(&image->key, key);
    }
    lun_image_hang_up(image, &talk);
    return error;
}

/* Registrations of sessions that are over stay in some targets; CLEAR takes them all away if all are ours. */
void lun_release(struct image *base, uint64_t key)
{
    struct lun_image *image = lun_image_of(base);
    struct lun_talk talk;
    struct lun_keys keys;
    struct sentence why;
    bool ours = !atomic_load(&image->taken);
    atomic_store(&image->key, 0);
    if (!ours)
        return;
    /* The mount ends, and that is just when this is to be said; but not for long. */
    static const _Atomic bool never = false;
    pthread_mutex_lock(&image->talking);
    image->account.stopping = &never;
    if (lun_talk_open(&talk, &image->account, LUN_SESSION_TALK, clock_now() + RELEASE_NS, &why) != 0) {
        pthread_mutex_unlock(&image->talking);
        return;
    }
    if (read_keys(&talk, key, &keys) == 0 && keys.ours > 0 &&
        reserve_out(&talk, SCSI_PERSISTENT_RESERVE_REGISTER_AND_IGNORE_EXISTING_KEY, 0, key) == 0)
        reserve_out(&talk, keys.others ? SCSI_PERSISTENT_RESERVE_REGISTER : SCSI_PERSISTENT_RESERVE_CLEAR, key, 0);
    lun_image_hang_up(image, &talk);
}
