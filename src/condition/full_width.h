/*
 * full_width.h
 *		Signs of East Asian keyboards that are taken for those of a condition.
 */
#ifndef QM_CONDITION_FULL_WIDTH_H
#define QM_CONDITION_FULL_WIDTH_H

#include "postgres.h"

typedef struct FullWidthSign
{
	const char *bytes;    /* in UTF-8 */
	const char *name;     /* full-width comma */
	const char *code;     /* U+FF0C */
	const char *meant;    /* what a condition has in its place */
	bool        is_usual; /* common in names, too */
} FullWidthSign;

extern const FullWidthSign *full_width_at(const char *text, size_t length);
extern const FullWidthSign *full_width_in(const char *text);

#endif /* QM_CONDITION_FULL_WIDTH_H */
