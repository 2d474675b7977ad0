/*
 * credential.h
 *		Keys of gateways, by reference: env:, file: or row:.
 *
 * Nothing here puts a key, or a reference (somebody may have written the key
 * there by mistake), into an error, a log or a query.
 */
#ifndef QM_CREDENTIAL_H
#define QM_CREDENTIAL_H

#include "postgres.h"

/* The longest key, in bytes. */
#define CREDENTIAL_MAX_LENGTH 4096

/* What is wrong with the form of a reference: a constant text; NULL: nothing. */
extern const char *credential_reference_problem(const char *reference);

/*
 * Fetches the key a reference stands for, allocated in memory.  NULL: it
 * cannot be had, and *problem says why (a constant text).  SPI must be
 * connected; the caller needs no right to read quota_credential.
 */
extern char *credential_fetch(const char *reference, MemoryContext memory, const char **problem);

/*
 * From here to its end the statement that the client has sent is not shown,
 * neither with errors and whatever else the log has it with, nor in
 * pg_stat_activity.  Not what logs statements for themselves: that has its text
 * from elsewhere.
 */
extern void credential_hide_statement(void);

/* Overwrites and frees a key; NULL is allowed. */
extern void credential_forget(char *secret);

#endif /* QM_CREDENTIAL_H */
