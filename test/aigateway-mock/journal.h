/*
 * journal.h
 *		A file from which the ledger is made again when the mock was killed.
 *
 * Without --journal all of this does nothing.  With it every change of the ledger is handed to the
 * kernel before it is made, and so before it is answered: what a client was told is never lost, however
 * the process ends (the machine must live on).  The ledger calls these functions under its lock.
 */
#ifndef JOURNAL_H
#define JOURNAL_H

#include <stdbool.h>

#include "ledger.h"

/*
 * Makes the ledger what the file says, and writes to it from now on; a file that is not there yet is
 * made.  A last record that was cut short is dropped: it was never answered.  False, with a message, if
 * the file cannot be used.  Must be called before any thread serves requests.
 */
extern bool journal_open(const char *path);

/* Note what is about to be done; see the ledger's functions.  A failure ends the process. */
extern void journal_apply(const struct change_request *request);
extern void journal_set(const char *user, size_t user_length, const amount *quota,
						const amount *used);
extern void journal_honour_idempotency(bool honour);

/* Empties the file. */
extern void journal_reset(void);

/* Leaves the file as it is: what follows does not count. */
extern void journal_close(void);

#endif
