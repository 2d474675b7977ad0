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
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(qm_star_list);

/* The longest white space character, in bytes. */
#define MAX_SPACE 3

/*
 * White space as Unicode has it (property White_Space), in UTF-8: whatever the
 * locale, since the result is indexed.
 */
static const char *const spaces[] =
	{
		"\t",           "\n",           "\v",
		"\f",           "\r",           " ",
		"\xc2\x85",     /* U+0085 next line */
		"\xc2\xa0",     /* U+00A0 no-break space */
		"\xe1\x9a\x80", /* U+1680 Ogham space mark */
		"\xe2\x80\x80", /* U+2000 to U+200A: en quad to hair space */
		"\xe2\x80\x81", "\xe2\x80\x82", "\xe2\x80\x83",
		"\xe2\x80\x84", "\xe2\x80\x85", "\xe2\x80\x86",
		"\xe2\x80\x87", "\xe2\x80\x88", "\xe2\x80\x89",
		"\xe2\x80\x8a", "\xe2\x80\xa8", /* U+2028 line separator */
		"\xe2\x80\xa9",                 /* U+2029 paragraph separator */
		"\xe2\x80\xaf",                 /* U+202F narrow no-break space */
		"\xe2\x81\x9f",                 /* U+205F medium mathematical space */
		"\xe3\x80\x80",                 /* U+3000 ideographic space */
};

/*
 * Whether so many bytes are one white space character.
 */
static bool
is_space(const char *p, size_t length)
{
	for (int i = 0; i < lengthof(spaces); i++)
	{
		if (strlen(spaces[i]) == length && memcmp(spaces[i], p, length) == 0)
			return true;
	}
	return false;
}

/*
 * Length of the white space character that a slice begins or ends with; 0:
 * there is none.
 */
static size_t
space_length(const char *start, const char *end, bool at_end)
{
	for (size_t length = 1; length <= MAX_SPACE && length <= (size_t) (end - start); length++)
	{
		if (is_space(at_end ? end - length : start, length))
			return length;
	}
	return 0;
}

/*
 * How many elements a list has at most.
 */
static int
count_elements(const char *p, const char *end)
{
	int count = 1;

	while ((p = memchr(p, ',', end - p)) != NULL)
	{
		count++;
		p++;
	}
	return count;
}

/*
 * Elements in order, trimmed of white space, without empty ones.
 */
Datum
qm_star_list(PG_FUNCTION_ARGS)
{
	text       *list = PG_GETARG_TEXT_PP(0);
	const char *p = VARDATA_ANY(list);
	const char *end = p + VARSIZE_ANY_EXHDR(list);
	Datum      *elements = palloc_extended(sizeof(Datum) * count_elements(p, end), MCXT_ALLOC_HUGE);
	int         count = 0;

	while (p <= end)
	{
		const char *comma = memchr(p, ',', end - p);
		const char *last = comma ? comma : end;
		const char *next = last + 1;
		size_t      space;

		CHECK_FOR_INTERRUPTS();
		while ((space = space_length(p, last, false)) > 0)
			p += space;
		while ((space = space_length(p, last, true)) > 0)
			last -= space;
		if (p < last)
			elements[count++] = PointerGetDatum(cstring_to_text_with_len(p, last - p));
		p = next;
	}
	PG_RETURN_ARRAYTYPE_P(construct_array(elements, count, TEXTOID, -1, false, TYPALIGN_INT));
}
