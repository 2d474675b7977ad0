/*
 * stars.c
 *		star_list(text): the elements of a comma list.
 */
#include "postgres.h"
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(qm_star_list);

/*
 * White space as the condition language has it, whatever the locale: the
 * result is indexed.
 */
static bool
is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/*
 * Elements in order, trimmed of white space, without empty ones.
 */
Datum
qm_star_list(PG_FUNCTION_ARGS)
{
	text            *list = PG_GETARG_TEXT_PP(0);
	const char      *p = VARDATA_ANY(list);
	const char      *end = p + VARSIZE_ANY_EXHDR(list);
	ArrayBuildState *result = initArrayResult(TEXTOID, CurrentMemoryContext, false);

	while (p <= end)
	{
		const char *comma = memchr(p, ',', end - p);
		const char *last = comma ? comma : end;
		const char *next = last + 1;

		while (p < last && is_space(*p))
			p++;
		while (p < last && is_space(last[-1]))
			last--;
		if (p < last)
			result =
				accumArrayResult(result, PointerGetDatum(cstring_to_text_with_len(p, last - p)),
								 false, TEXTOID, CurrentMemoryContext);
		p = next;
	}
	PG_RETURN_DATUM(makeArrayResult(result, CurrentMemoryContext));
}
