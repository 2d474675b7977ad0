/*
 * plain_table.h
 *		Whether code of ours may reach into the storage of a table.
 */
#ifndef QM_PLAIN_TABLE_H
#define QM_PLAIN_TABLE_H

#include "utils/relcache.h"

extern bool is_plain_table(Relation table);

#endif /* QM_PLAIN_TABLE_H */
