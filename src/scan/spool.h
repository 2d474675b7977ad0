/*
 * spool.h
 *		User ids that an evaluation found, kept until they are written; each
 *		with the balance that its amount depends on, if the spool has these.
 *
 * A spool takes the memory that it is given and spills the rest to temporary
 * files.  It ends with its memory context and its resource owner, which must
 * be released as for an abort: after an error a file may have something to
 * write that there is no room for.
 *
 * Ids are read in ascending order, byte by byte: the order of the key of
 * quota_execute.
 */
#ifndef QM_SPOOL_H
#define QM_SPOOL_H

#include "postgres.h"

#include "utils/resowner.h"

typedef struct Spool Spool;

extern Spool *spool_begin(int memory, ResourceOwner files, bool has_balances);
extern void   spool_add(Spool *spool, const char *id, int length, Datum balance);
extern int64  spool_count(const Spool *spool);
extern void   spool_rewind(Spool *spool);
extern text  *spool_next(Spool *spool, Datum *balance);

#endif /* QM_SPOOL_H */
