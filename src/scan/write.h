/*
 * write.h
 *		Fourth phase of a scan: writes grants.
 *
 * What all grants of a run have in common is a template: a row of
 * quota_execute without a user; a grant may have an amount of its own in place
 * of the template's.  Where the table is an ordinary one its rows
 * are written in batches by the table access method, as COPY does; a table of
 * any other kind, or one with triggers or rules, gets an INSERT of the
 * extension's for each batch.  Either way the key is the guard: a grant that exists
 * already causes a unique violation.
 *
 * Written by the owner; within SPI.
 */
#ifndef QM_WRITE_H
#define QM_WRITE_H

#include "postgres.h"

#include "access/htup.h"

typedef struct GrantWriter GrantWriter;

extern GrantWriter *grant_writer_begin(HeapTupleHeader pattern, bool own_amounts);
extern void         grant_writer_add(GrantWriter *writer, const text *user_id, Datum amount);
extern int64        grant_writer_end(GrantWriter *writer);

#endif /* QM_WRITE_H */
