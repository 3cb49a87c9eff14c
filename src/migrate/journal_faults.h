/* journal_faults: the journals' disk fails on purpose: a file of rules, for tests and for an administrator's trial. It is
 * read again whenever it changes; replace it by a rename. One rule a line, # begins a comment:
 *
 *   VERB ACTION [after N] [count N]
 *
 *   VERB    write, sync, directory (its sync), rename, remove, open, read, any
 *   ACTION  hang        waits until the line is gone, and is then done
 *           delay TIME  done after the time: 500ms, 2s
 *           error NAME  ends with this error (EIO, ENOSPC …), nothing is done
 *   after   the first N of this verb, counted from when the line was read first, are spared
 *   count   it acts N times
 *
 * The first rule that applies acts. What is no rule is told in the log and left out. */
#pragma once

enum journal_verb {
    JOURNAL_WRITE,
    JOURNAL_SYNC,
    JOURNAL_DIRECTORY,
    JOURNAL_RENAME,
    JOURNAL_REMOVE,
    JOURNAL_OPEN,
    JOURNAL_READ,
    JOURNAL_VERBS
};

struct journal_faults;

/* file: need not be there. NULL: no memory. */
struct journal_faults *journal_faults_open(const char *file);
void journal_faults_close(struct journal_faults *faults);
/* Before a call: waits as a rule says; 0, or the error that the call ends with. Any thread. */
int journal_fault(struct journal_faults *faults, enum journal_verb verb);
