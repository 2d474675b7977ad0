/*
 * plain_table.h
 *		Whether code of ours may reach into the storage of a table.
 */
#ifndef QM_PLAIN_TABLE_H
#define QM_PLAIN_TABLE_H

#include "utils/relcache.h"

/*
 * True if the rows that statements see of a table are those in its own heap,
 * on this server.  Not so of a partitioned or foreign table, of one with
 * another access method, with rules that rewrite what is deleted, or whose
 * statements somebody's planner sends elsewhere: the heap of a table that is
 * distributed over servers is there and empty.  What code of ours wrote into
 * such a heap would be lost.  Triggers are not looked at.
 *
 * The table is locked as for writing.  Asks the planner: needs a snapshot, and
 * costs about what a small statement does.
 */
extern bool is_plain_table(Relation table);

#endif /* QM_PLAIN_TABLE_H */
