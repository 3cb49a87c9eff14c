#include "backends/iscsi_lun.h"

#include <string.h>

#include "io/image.h"

#define ANSWER 255

#define TRANSFER_MAX (1u << 20)
#define SAME_BYTES   (32u << 20)  /* of a WRITE SAME that writes: it must end well before the deadline */
#define UNMAP_BYTES  (512u << 20) /* of one that unmaps; some targets count bytes in 32 bits */
#define NO_LIMIT     UINT32_MAX

static uint32_t get32(const uint8_t *data)
{
    return scsi_get_uint32(data);
}

void lun_decode_capacity(struct lun *lun, const uint8_t *data, uint32_t size, bool *provisioned, bool *zeroes)
{
    uint8_t all[32] = {0};
    memcpy(all, data, size < sizeof(all) ? size : sizeof(all));
    lun->blocks = scsi_get_uint64(all) + 1;
    lun->block = get32(all + 8);
    *provisioned = all[14] & 0x80; /* LBPME */
    *zeroes = all[14] & 0x40;      /* LBPRZ */
}

static uint32_t lesser(uint64_t a, uint64_t b)
{
    uint64_t least = a < b ? a : b;
    return least < NO_LIMIT ? (uint32_t)least : NO_LIMIT;
}

/* SBC-3 section 6.6.4, Block Limits VPD page. Zero means that no limit is told. */
void lun_decode_limits(struct lun *lun, const uint8_t *data, uint32_t size)
{
    uint8_t all[64] = {0};
    memcpy(all, data, size < sizeof(all) ? size : sizeof(all));
    uint32_t transfer = get32(all + 8);
    uint64_t same = scsi_get_uint64(all + 36);
    uint32_t most = TRANSFER_MAX / lun->block;
    lun->max_transfer = (transfer ? lesser(transfer, most) : most) * lun->block;
    lun->max_same = lesser(same ? same : NO_LIMIT, SAME_BYTES / lun->block);
    lun->max_same_unmap = lesser(same ? same : NO_LIMIT, UNMAP_BYTES / lun->block);
    lun->granularity = get32(all + 28);
}

static int vpd(struct lun_talk *talk, uint8_t page, uint8_t *data, uint32_t *size)
{
    struct lun_command command = {
        .cdb = {SCSI_OPCODE_INQUIRY, 1, page, 0, ANSWER}, .cdb_size = 6, .in = data, .length = ANSWER};
    memset(data, 0, ANSWER);
    int error = lun_talk_command(talk, &command);
    *size = error ? 0 : command.moved;
    return error;
}

static int ask_type(struct lun_talk *talk, struct sentence *why)
{
    const struct lun_account *account = talk->link.account;
    uint8_t data[ANSWER] = {0};
    struct lun_command command = {
        .cdb = {SCSI_OPCODE_INQUIRY, 0, 0, 0, ANSWER}, .cdb_size = 6, .in = data, .length = ANSWER};
    int error = lun_talk_command(talk, &command);
    if (error && error != -ENXIO && error != -EOPNOTSUPP)
        return refuse(why, error, "datastore %s: LUN %u of %s does not answer: %s", account->name, account->url.lun,
            account->url.target, error_text(error));
    unsigned qualifier = data[0] >> 5, type = data[0] & 0x1f;
    if (error || qualifier != 0 || type == 0x1f)
        return refuse(why, -ENXIO, "datastore %s: the target %s has no LUN %u for this initiator; %s", account->name,
            account->url.target, account->url.lun, "look at its list of LUNs and at what it lets the initiator see");
    if (type != SCSI_INQUIRY_PERIPHERAL_DEVICE_TYPE_DIRECT_ACCESS)
        return refuse(why, -ENOTBLK,
            "datastore %s: LUN %u of %s is no disk but %s; the disks of this target have other numbers", account->name,
            account->url.lun, account->url.target,
            type == SCSI_INQUIRY_PERIPHERAL_DEVICE_TYPE_STORAGE_ARRAY_CONTROLLER ? "the target's controller"
                                                                                 : "a device of another type");
    return 0;
}

static int ask_ready(struct lun_talk *talk, struct sentence *why)
{
    const struct lun_account *account = talk->link.account;
    struct lun_command command = {.cdb = {SCSI_OPCODE_TESTUNITREADY}, .cdb_size = 6};
    int error = lun_talk_command(talk, &command);
    if (error == -EBUSY) /* a reservation: it is there and will be asked for again */
        return 0;
    if (error)
        return refuse(why, error, "datastore %s: LUN %u of %s is not ready (sense %x/%04x: %s); start it at the target",
            account->name, account->url.lun, account->url.target, command.key, command.code, error_text(error));
    return 0;
}

static int read_capacity(struct lun *lun, struct lun_talk *talk, bool *provisioned, bool *zeroes, struct sentence *why)
{
    const struct lun_account *account = talk->link.account;
    uint8_t data[32] = {0};
    struct lun_command command = {.cdb = {SCSI_OPCODE_SERVICE_ACTION_IN, SCSI_READCAPACITY16, [13] = sizeof(data)},
        .cdb_size = 16,
        .in = data,
        .length = sizeof(data)};
    int error = lun_talk_command(talk, &command);
    if (error)
        return refuse(why, error, "datastore %s: LUN %u of %s does not tell its size (READ CAPACITY (16)): %s",
            account->name, account->url.lun, account->url.target, error_text(error));
    lun_decode_capacity(lun, data, command.moved, provisioned, zeroes);
    if (lun->block != 512 && lun->block != 4096)
        return refuse(why, -EINVAL,
            "datastore %s: LUN %u of %s has blocks of %u bytes; 512 and 4096 can be used, export it with one of them",
            account->name, account->url.lun, account->url.target, lun->block);
    return 0;
}

int lun_capacity(struct lun *lun, struct lun_talk *talk, struct sentence *why)
{
    bool provisioned, zeroes;
    struct lun now;
    int error = read_capacity(&now, talk, &provisioned, &zeroes, why);
    if (!error && now.block != lun->block)
        error = refuse(why, -EINVAL, "datastore %s: the LUN's blocks have %u bytes now instead of %u; open it again",
            talk->link.account->name, now.block, lun->block);
    if (!error)
        lun->blocks = now.blocks;
    return error;
}

/* SPC-4 section 6.13, MODE SENSE (6); the header's device-specific parameter has the write protection (SBC-3 section
 * 6.4.1), the caching mode page (6.4.5) the write cache. Whoever does not tell has one. */
static void ask_modes(struct lun *lun, struct lun_talk *talk)
{
    uint8_t data[ANSWER] = {0};
    struct lun_command command = {.cdb = {SCSI_OPCODE_MODESENSE6, 8, SCSI_MODEPAGE_CACHING, 0, ANSWER},
        .cdb_size = 6,
        .in = data,
        .length = ANSWER};
    unsigned header = 4, page;
    lun->cache = true;
    if (lun_talk_command(talk, &command) == 0) {
        lun->read_only = data[2] & 0x80;
        page = header + data[3];
    } else {
        command = (struct lun_command){.cdb = {SCSI_OPCODE_MODESENSE10, 8, SCSI_MODEPAGE_CACHING, [8] = ANSWER},
            .cdb_size = 10,
            .in = data,
            .length = ANSWER};
        if (lun_talk_command(talk, &command) != 0)
            return;
        lun->read_only = data[3] & 0x80;
        page = 8 + scsi_get_uint16(data + 6);
    }
    if (page + 2 < command.moved && (data[page] & 0x3f) == SCSI_MODEPAGE_CACHING)
        lun->cache = data[page + 2] & 0x04;
}

/* SPC-4 section 6.35. Who does not know this command is asked what it can by its limits alone. */
static bool has_same(struct lun_talk *talk, bool told_limit)
{
    uint8_t data[32] = {0};
    struct lun_command command = {.cdb = {SCSI_OPCODE_MAINTENANCE_IN, SCSI_REPORT_SUPPORTED_OP_CODES, 1,
                                      SCSI_OPCODE_WRITE_SAME16, [9] = sizeof(data)},
        .cdb_size = 12,
        .in = data,
        .length = sizeof(data)};
    if (lun_talk_command(talk, &command) != 0)
        return told_limit;
    return (data[1] & 7) == 3;
}

static bool has_map(struct lun_talk *talk)
{
    uint8_t data[24];
    struct lun_command command = {.cdb = {SCSI_OPCODE_SERVICE_ACTION_IN, SCSI_GET_LBA_STATUS, [13] = sizeof(data)},
        .cdb_size = 16,
        .in = data,
        .length = sizeof(data)};
    return lun_talk_command(talk, &command) == 0 && command.moved == sizeof(data);
}

int lun_inquire(struct lun *lun, struct lun_talk *talk, struct sentence *why)
{
    uint8_t limits[ANSWER], provisioning[ANSWER];
    uint32_t limits_size, provisioning_size;
    bool provisioned = false, zeroes = false;
    memset(lun, 0, sizeof(*lun));
    int error = ask_type(talk, why);
    if (!error)
        error = ask_ready(talk, why);
    if (!error)
        error = read_capacity(lun, talk, &provisioned, &zeroes, why);
    if (error)
        return error;
    ask_modes(lun, talk);
    vpd(talk, 0xb0, limits, &limits_size);
    lun_decode_limits(lun, limits, limits_size);
    vpd(talk, 0xb2, provisioning, &provisioning_size); /* SBC-3 section 6.6.7, Logical Block Provisioning */
    lun->same = has_same(talk, scsi_get_uint64(limits + 36) != 0);
    bool same_unmaps = provisioning_size > 5 && provisioning[5] & 0x40; /* LBPWS */
    lun->unmap = lun->same && provisioned && zeroes && same_unmaps;
    lun->map = lun->unmap && has_map(talk);
    if (talk->link.state != LUN_LINK_UP)
        return refuse(why, -ETIMEDOUT, "datastore %s: the target %s stopped answering", talk->link.account->name,
            talk->link.account->url.target);
    return 0;
}
