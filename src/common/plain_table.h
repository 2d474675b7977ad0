/*
 * plain_table.h
 *		Whether our code may access the storage of a table directly.
 */
#ifndef QM_PLAIN_TABLE_H
#define QM_PLAIN_TABLE_H

#include "utils/relcache.h"

extern bool is_plain_table(Relation table);

#endif /* QM_PLAIN_TABLE_H */
