/* Answers of a target, and the decoders of what it tells of a LUN. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "backends/iscsi_lun.h"
#include "backends/iscsi_reserve.h"
#include "backends/iscsi_sense.h"

static void means(int status, int key, int code, enum lun_verdict verdict, int error)
{
    struct lun_answer answer = lun_answer(status, key, code);
    cr_assert_eq(
        answer.verdict, verdict, "%x %x/%04x is %d", (unsigned)status, (unsigned)key, (unsigned)code, answer.verdict);
    cr_assert_eq(answer.error, error, "%x/%04x gives %d", (unsigned)key, (unsigned)code, answer.error);
}

Test(iscsi_sense, status)
{
    means(SCSI_STATUS_GOOD, 0, 0, LUN_DONE, 0);
    means(SCSI_STATUS_CONDITION_MET, 0, 0, LUN_DONE, 0);
    means(SCSI_STATUS_BUSY, 0, 0, LUN_LATER, 0);
    means(SCSI_STATUS_TASK_SET_FULL, 0, 0, LUN_LATER, 0);
    means(SCSI_STATUS_TASK_ABORTED, 0, 0, LUN_LATER, 0);
    means(SCSI_STATUS_RESERVATION_CONFLICT, 0, 0, LUN_CONFLICT, -EBUSY);
    means(SCSI_STATUS_CANCELLED, 0, 0, LUN_LOST, 0);
    means(SCSI_STATUS_TIMEOUT, 0, 0, LUN_LOST, 0);
    means(SCSI_STATUS_ERROR, 0, 0, LUN_LOST, 0);
    means(0x7f, 0, 0, LUN_LOST, 0);
}

Test(iscsi_sense, conditions)
{
    int check = SCSI_STATUS_CHECK_CONDITION;
    means(check, 0x1, 0x1701, LUN_DONE, 0);        /* recovered */
    means(check, 0x2, 0x0401, LUN_LATER, 0);       /* becoming ready */
    means(check, 0x2, 0x0402, LUN_FAILED, -ENXIO); /* somebody must start it */
    means(check, 0x2, 0x3a00, LUN_FAILED, -ENOMEDIUM);
    means(check, 0x3, 0x1100, LUN_FAILED, -EIO);
    means(check, 0x4, 0x4400, LUN_FAILED, -EIO);
    means(check, 0x5, 0x2000, LUN_UNSUPPORTED, -EOPNOTSUPP);
    means(check, 0x5, 0x2400, LUN_UNSUPPORTED, -EOPNOTSUPP);
    means(check, 0x5, 0x2100, LUN_FAILED, -ENOSPC);
    means(check, 0x5, 0x2500, LUN_FAILED, -ENXIO);
    means(check, 0x6, 0x2900, LUN_RESET, 0);
    means(check, 0x6, 0x2907, LUN_RESET, 0);
    means(check, 0x6, 0x2a09, LUN_CHANGED, 0);
    means(check, 0x6, 0x2a03, LUN_AGAIN, 0);
    means(check, 0x6, 0x3f0e, LUN_CHANGED, 0);
    means(check, 0x7, 0x2700, LUN_FAILED, -EROFS);
    means(check, 0x7, 0x2707, LUN_FAILED, -ENOSPC);
    means(check, 0xb, 0x4700, LUN_LATER, 0);
    means(check, 0xe, 0x1d00, LUN_FAILED, -EIO);
}

Test(iscsi_sense, capacity)
{
    uint8_t data[32] = {0, 0, 0, 2, 0, 0, 0, 0xff, 0, 0, 16, 0, 0, 3, 0xc0};
    struct lun lun = {0};
    bool provisioned, zeroes;
    lun_decode_capacity(&lun, data, sizeof(data), &provisioned, &zeroes);
    cr_assert_eq(lun.blocks, 0x200000100ull);
    cr_assert_eq(lun.block, 4096);
    cr_assert(provisioned && zeroes);
    data[14] = 0;
    lun_decode_capacity(&lun, data, sizeof(data), &provisioned, &zeroes);
    cr_assert(!provisioned && !zeroes);
    lun_decode_capacity(&lun, data, 6, &provisioned, &zeroes);
    cr_assert_eq(lun.block, 0);
}

Test(iscsi_sense, limits)
{
    uint8_t data[64] = {0};
    struct lun lun = {.block = 512};
    lun_decode_limits(&lun, data, 0); /* nothing told: ours */
    cr_assert_eq(lun.max_transfer, 1u << 20);
    cr_assert(lun.max_same > 0 && (uint64_t)lun.max_same * 512 < 1ull << 32);
    cr_assert(lun.max_same_unmap > 0 && (uint64_t)lun.max_same_unmap * 512 < 1ull << 32);
    scsi_set_uint32(data + 8, 128);
    scsi_set_uint32(data + 28, 8);
    scsi_set_uint64(data + 36, 64);
    lun_decode_limits(&lun, data, sizeof(data));
    cr_assert_eq(lun.max_transfer, 128 * 512);
    cr_assert_eq(lun.max_same, 64);
    cr_assert_eq(lun.max_same_unmap, 64);
    cr_assert_eq(lun.granularity, 8);
    scsi_set_uint32(data + 8, UINT32_MAX);
    scsi_set_uint64(data + 36, UINT64_MAX);
    lun.block = 4096;
    lun_decode_limits(&lun, data, sizeof(data));
    cr_assert_eq(lun.max_transfer, 1u << 20);
    cr_assert((uint64_t)lun.max_same_unmap * 4096 < 1ull << 32);
}

Test(iscsi_sense, keys)
{
    uint8_t data[64] = {0};
    scsi_set_uint32(data + 4, 24);
    scsi_set_uint64(data + 8, 7);
    scsi_set_uint64(data + 16, 8);
    scsi_set_uint64(data + 24, 7);
    scsi_set_uint64(data + 32, 99); /* behind the list's end */
    struct lun_keys keys = lun_keys_decode(data, sizeof(data), 7);
    cr_assert_eq(keys.ours, 2);
    cr_assert_eq(keys.others, 1);
    cr_assert_eq(keys.other, 8);
    keys = lun_keys_decode(data, 16, 7); /* cut short */
    cr_assert(keys.ours == 1 && keys.others == 0);
    scsi_set_uint32(data + 4, UINT32_MAX);
    keys = lun_keys_decode(data, sizeof(data), 7);
    cr_assert_eq(keys.ours + keys.others, 7);
    keys = lun_keys_decode(data, 3, 7);
    cr_assert_eq(keys.ours + keys.others, 0);
}

Test(iscsi_sense, reservation)
{
    uint8_t data[24] = {0};
    data[21] = 0x07;
    cr_assert_eq(lun_reservation_decode(data, sizeof(data)), 0); /* there is none */
    scsi_set_uint32(data + 4, 16);
    cr_assert_eq(
        lun_reservation_decode(data, sizeof(data)), SCSI_PERSISTENT_RESERVE_TYPE_WRITE_EXCLUSIVE_ALL_REGISTRANTS);
    cr_assert_eq(lun_reservation_decode(data, 23), 0);
}
