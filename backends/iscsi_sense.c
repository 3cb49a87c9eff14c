/* Sources: SAM-5 section 5.3 (status), SPC-4 section 4.5 (sense data) and its annex of ASC and ASCQ codes. */
#include "backends/iscsi_sense.h"

#include <errno.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#define ASC(code) ((code) >> 8 & 0xff)

static struct lun_answer failed(int error)
{
    return (struct lun_answer){LUN_FAILED, error};
}

static struct lun_answer not_ready(int code)
{
    /* 04h/01 becoming ready, 04h/07 operation, 04h/0Ah and 0Bh target port's state, 04h/14 space allocation */
    if (code == 0x0401 || code == 0x0404 || code == 0x0407 || code == 0x0409 || code == 0x040a || code == 0x0414)
        return (struct lun_answer){LUN_LATER, 0};
    return failed(ASC(code) == 0x3a ? -ENOMEDIUM : -ENXIO);
}

static struct lun_answer unit_attention(int code)
{
    if (ASC(code) == 0x29)
        return (struct lun_answer){LUN_RESET, 0};
    if (code == 0x2a09 || code == 0x3f0e || code == 0x2a00)
        return (struct lun_answer){LUN_CHANGED, 0};
    return (struct lun_answer){LUN_AGAIN, 0};
}

static struct lun_answer illegal_request(int code)
{
    switch (ASC(code)) {
    case 0x20: /* operation code */
    case 0x24: /* field in CDB */
    case 0x26: /* field in parameter list */
        return (struct lun_answer){LUN_UNSUPPORTED, -EOPNOTSUPP};
    case 0x21: /* LBA out of range: the LUN has shrunk, or never was that large */
        return failed(-ENOSPC);
    case 0x25: /* logical unit not supported: it was taken away */
        return failed(-ENXIO);
    default:
        return failed(-EIO);
    }
}

static struct lun_answer check_condition(int key, int code)
{
    switch (key) {
    case SCSI_SENSE_NO_SENSE:
    case SCSI_SENSE_RECOVERED_ERROR:
        return (struct lun_answer){LUN_DONE, 0};
    case SCSI_SENSE_NOT_READY:
        return not_ready(code);
    case SCSI_SENSE_UNIT_ATTENTION:
        return unit_attention(code);
    case SCSI_SENSE_ILLEGAL_REQUEST:
        return illegal_request(code);
    case SCSI_SENSE_DATA_PROTECTION:
        return failed(code == 0x2707 ? -ENOSPC : -EROFS); /* 27h/07: space allocation failed write protect */
    case SCSI_SENSE_COMMAND_ABORTED:
        return (struct lun_answer){LUN_LATER, 0};
    default: /* medium, hardware, blank check, miscompare … */
        return failed(-EIO);
    }
}

struct lun_answer lun_answer(int status, int key, int code)
{
    switch (status) {
    case SCSI_STATUS_GOOD:
    case SCSI_STATUS_CONDITION_MET:
        return (struct lun_answer){LUN_DONE, 0};
    case SCSI_STATUS_CHECK_CONDITION:
        return check_condition(key, code);
    case SCSI_STATUS_BUSY:
    case SCSI_STATUS_TASK_SET_FULL:
    case SCSI_STATUS_ACA_ACTIVE:
    case SCSI_STATUS_TASK_ABORTED:
        return (struct lun_answer){LUN_LATER, 0};
    case SCSI_STATUS_RESERVATION_CONFLICT:
        return (struct lun_answer){LUN_CONFLICT, -EBUSY};
    default: /* cancelled, timed out, an answer that is none */
        return (struct lun_answer){LUN_LOST, 0};
    }
}
