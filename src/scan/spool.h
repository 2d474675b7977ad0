/*
 * spool.h
 *		User ids that an evaluation found, kept until they are written.
 *
 * A spool takes the memory that it is given and spills the rest to temporary
 * files.  It belongs to the top transaction: spool_end() must be called before
 * the transaction is committed; an abort takes care of itself.
 *
 * Ids are read in ascending order, byte by byte: the order of the key of
 * quota_execute.
 */
#ifndef QM_SPOOL_H
#define QM_SPOOL_H

#include "postgres.h"

typedef struct Spool Spool;

/* An empty spool in the current memory context, with so many kilobytes of memory. */
extern Spool *spool_begin(int memory);

/* Adds a copy of an id. */
extern void spool_add(Spool *spool, const char *id, int length);

extern int64 spool_count(const Spool *spool);

/* Begins to read from the first id on; sorts with work_mem of memory where that is needed. */
extern void spool_rewind(Spool *spool);

/*
 * The next id in order; NULL: there is none.  It is valid until the next call.
 */
extern text *spool_next(Spool *spool);

extern void spool_end(Spool *spool);

#endif /* QM_SPOOL_H */
