/*
 * stars.c
 *		star_list(text): the elements of a comma list.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/memutils.h"

#include "common/compat.h"

PG_FUNCTION_INFO_V1(qm_star_list);

/*
 * White space as Unicode has it (property White_Space), in UTF-8: whatever the
 * locale, since the result is indexed.  Beside these: tab to carriage return,
 * and blank.
 */
static const char spaces_of_two[][3] = {
	"\xc2\x85", /* U+0085 next line */
	"\xc2\xa0", /* U+00A0 no-break space */
};
static const char spaces_of_three[][4] = {
	"\xe1\x9a\x80",                                 /* U+1680 Ogham space mark */
	"\xe2\x80\x80", "\xe2\x80\x81", "\xe2\x80\x82", /* U+2000 to U+200A: en quad to */
	"\xe2\x80\x83", "\xe2\x80\x84", "\xe2\x80\x85", /* hair space */
	"\xe2\x80\x86", "\xe2\x80\x87", "\xe2\x80\x88",
	"\xe2\x80\x89", "\xe2\x80\x8a", "\xe2\x80\xa8", /* U+2028 line separator */
	"\xe2\x80\xa9",                                 /* U+2029 paragraph separator */
	"\xe2\x80\xaf",                                 /* U+202F narrow no-break space */
	"\xe2\x81\x9f",                                 /* U+205F medium mathematical space */
	"\xe3\x80\x80",                                 /* U+3000 ideographic space */
};

/*
 * Length of the white space character that a slice begins or ends with; 0:
 * there is none.  Called for each element of each user whose condition asks
 * for stars: nearly all begin and end with a letter or digit.
 */
static size_t
space_length(const char *start, const char *end, bool at_end)
{
	unsigned char byte;

	if (start >= end)
		return 0;
	/* A byte below 0x80 is a character of its own, wherever it stands. */
	byte = (unsigned char) (at_end ? end[-1] : start[0]);
	if (byte < 0x80)
		return byte == ' ' || (byte >= '\t' && byte <= '\r') ? 1 : 0;
	for (int i = 0; end - start >= 2 && i < lengthof(spaces_of_two); i++)
	{
		if (memcmp(at_end ? end - 2 : start, spaces_of_two[i], 2) == 0)
			return 2;
	}
	for (int i = 0; end - start >= 3 && i < lengthof(spaces_of_three); i++)
	{
		if (memcmp(at_end ? end - 3 : start, spaces_of_three[i], 3) == 0)
			return 3;
	}
	return 0;
}

/*
 * The next element that is not empty, trimmed of white space, from *p on, which
 * is moved behind its comma; `end` is the end of the list.  Returns its length;
 * 0: there is none.
 */
static size_t
next_element(const char **p, const char *end, const char **element)
{
	while (*p < end)
	{
		const char *start = *p;
		const char *comma = memchr(start, ',', end - start);
		const char *last = comma ? comma : end;
		size_t      space;

		*p = comma ? comma + 1 : end;
		CHECK_FOR_INTERRUPTS();
		while ((space = space_length(start, last, false)) > 0)
		{
			CHECK_FOR_INTERRUPTS();
			start += space;
		}
		while ((space = space_length(start, last, true)) > 0)
		{
			CHECK_FOR_INTERRUPTS();
			last -= space;
		}
		if (start < last)
		{
			*element = start;
			return last - start;
		}
	}
	return 0;
}

/* How many bytes an element takes in an array. */
static size_t
element_size(size_t length)
{
	return TYPEALIGN(ALIGNOF_INT, VARHDRSZ + length);
}

/*
 * Size of the data of an array of the elements of a list, and how many there
 * are.
 */
static size_t
measure(const char *p, const char *end, int *count)
{
	const char *element;
	size_t      length;
	size_t      size = 0;

	*count = 0;
	while ((length = next_element(&p, end, &element)) > 0)
	{
		size += element_size(length);
		(*count)++;
	}
	return size;
}

/* An array of so many texts, with room for so many bytes of them. */
static ArrayType *
make_array(int count, size_t data_size)
{
	size_t     size = ARR_OVERHEAD_NONULLS(1) + data_size;
	ArrayType *array;

	if (!AllocSizeIsValid(size))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("comma list is too long"),
						errdetail("Its elements would take %zu bytes in an array, more than the "
								  "maximum of %zu.",
								  size, (size_t) MaxAllocSize)));
	array = palloc0(size);
	SET_VARSIZE(array, size);
	array->ndim = 1;
	array->dataoffset = 0;
	array->elemtype = TEXTOID;
	ARR_DIMS(array)[0] = count;
	ARR_LBOUND(array)[0] = 1;
	return array;
}

/*
 * Elements in order, trimmed of white space, without empty ones.  They are
 * written once, where they stay: the memory needed is at most about five times
 * the list.
 */
Datum
qm_star_list(PG_FUNCTION_ARGS)
{
	text       *list = PG_GETARG_TEXT_PP(0);
	const char *p = VARDATA_ANY(list);
	const char *end = p + VARSIZE_ANY_EXHDR(list);
	int         count;
	size_t      size = measure(p, end, &count);
	ArrayType  *array;
	char       *target;
	const char *element;
	size_t      length;

	if (count == 0)
		PG_RETURN_ARRAYTYPE_P(construct_empty_array(TEXTOID));
	array = make_array(count, size);
	target = ARR_DATA_PTR(array);
	while ((length = next_element(&p, end, &element)) > 0)
	{
		SET_VARSIZE(target, VARHDRSZ + length);
		memcpy(VARDATA(target), element, length);
		target += element_size(length);
	}
	PG_RETURN_ARRAYTYPE_P(array);
}
