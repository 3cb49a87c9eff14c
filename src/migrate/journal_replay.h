/* journal_replay: what the bytes of a journal's file say. Pure but for memory; the bytes may be anything. */
#pragma once

#include "migrate/journal.h"

/* 0, -EBADMSG, -EPROTO, -ENOMEM, as journal_read. *end (may be NULL): where the last record ends. After an error *out
 * holds nothing. */
int journal_replay(const uint8_t *bytes, size_t length, struct journal_state *out, uint64_t *end);
