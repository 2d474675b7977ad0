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

extern const char *credential_reference_problem(const char *reference);
extern char *credential_fetch(const char *reference, MemoryContext memory, const char **problem);
extern void  credential_hide_statement(void);
extern void  credential_forget(char *secret);

#endif /* QM_CREDENTIAL_H */
