/* What a logical unit is and can, asked at open: SPC-4 INQUIRY with its VPD pages, MODE SENSE, REPORT SUPPORTED
 * OPERATION CODES; SBC-3 READ CAPACITY (16), GET LBA STATUS. */
#pragma once

#include "backends/iscsi_talk.h"

struct lun {
    uint32_t block;          /* bytes of a logical block */
    uint64_t blocks;         /* how many there are */
    uint32_t max_transfer;   /* bytes of one READ or WRITE */
    uint32_t max_same;       /* blocks of one WRITE SAME that writes */
    uint32_t max_same_unmap; /* blocks of one WRITE SAME that unmaps */
    uint32_t granularity;    /* blocks that are unmapped together */
    bool read_only;          /* the medium is write protected */
    bool cache;              /* there is a write cache: what is not synchronized can be lost */
    bool same;               /* WRITE SAME (16) is there */
    bool unmap;              /* … with UNMAP, and what was unmapped reads as zero */
    bool map;                /* GET LBA STATUS is there, and so is the above */
};

/* Blocks. 0 or -errno with a sentence. */
int lun_inquire(struct lun *lun, struct lun_talk *talk, struct sentence *why);
/* Asks for the size alone. */
int lun_capacity(struct lun *lun, struct lun_talk *talk, struct sentence *why);

/* Decoders of parameter data, tolerant of short answers (what is missing is zero). Pure. */
void lun_decode_capacity(struct lun *lun, const uint8_t *data, uint32_t size, bool *provisioned, bool *zeroes);
void lun_decode_limits(struct lun *lun, const uint8_t *data, uint32_t size);
