/*
 * spool.h
 *		User ids that an evaluation found, kept until they are written.
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

/* An empty spool in the current memory context, with so many kilobytes of memory; files has its files. */
extern Spool *spool_begin(int memory, ResourceOwner files);

/* Adds a copy of an id. */
extern void spool_add(Spool *spool, const char *id, int length);

extern int64 spool_count(const Spool *spool);

/* Begins to read from the first id on; sorts with work_mem of memory where that is needed. */
extern void spool_rewind(Spool *spool);

/*
 * The next id in order; NULL: there is none.  It is valid until the next call.
 */
extern text *spool_next(Spool *spool);

#endif /* QM_SPOOL_H */
