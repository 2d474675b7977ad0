/*
 * server.c
 *		What the parsers need of the server, for programs without one.
 *
 * Memory comes from malloc, piece by piece, so that the address sanitizer sees
 * each overrun; server_reset gives all of it back.  Of the rest there is no more
 * than they call.  What would raise an error aborts: the parsers return theirs.
 */
#include "postgres.h"

#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datetime.h"

#include "server.h"

volatile sig_atomic_t InterruptPending = false;

static void **pieces;
static int    piece_count;
static int    piece_room;

void
server_reset(void)
{
	while (piece_count > 0)
		free(pieces[--piece_count]);
}

/* The place of a piece in the list. */
static void **
place_of(void *piece)
{
	for (int i = piece_count - 1; i >= 0; i--)
	{
		if (pieces[i] == piece)
			return &pieces[i];
	}
	abort();
}

void *
palloc(Size size)
{
	void *piece = malloc(size);

	if (piece_count == piece_room)
	{
		piece_room = piece_room == 0 ? 1024 : piece_room * 2;
		pieces = realloc(pieces, (size_t) piece_room * sizeof(void *));
	}
	if (piece == NULL || pieces == NULL)
		abort();
	pieces[piece_count++] = piece;
	return piece;
}

void *
palloc0(Size size)
{
	return memset(palloc(size), 0, size);
}

void *
repalloc(void *piece, Size size)
{
	void **place = place_of(piece);

	*place = realloc(piece, size);
	return *place;
}

void
pfree(void *piece)
{
	void **place = place_of(piece);

	free(piece);
	*place = pieces[--piece_count];
}

char *
pnstrdup(const char *text, Size length)
{
	char *copy;

	length = strnlen(text, length);
	copy = palloc(length + 1);
	memcpy(copy, text, length);
	copy[length] = '\0';
	return copy;
}

char *
pstrdup(const char *text)
{
	return pnstrdup(text, strlen(text));
}

char *
server_text(const uint8_t *data, size_t size)
{
	char *text = pnstrdup((const char *) data, size);
	int   length = (int) strlen(text);

	if (pg_encoding_verifymbstr(PG_UTF8, text, length) < length)
	{
		for (int i = 0; i < length; i++)
			text[i] &= 0x7f;
		length = (int) strlen(text);
	}
	/* its own size exactly, so that what reads beyond is seen */
	return pnstrdup(text, length);
}

/* Texts are UTF-8, as in every database with the extension. */
int
pg_mbstrlen_with_len(const char *text, int limit)
{
	int count = 0;

	for (int at = 0; at < limit && text[at] != '\0'; count++)
		at += pg_encoding_mblen(PG_UTF8, text + at);
	return count;
}

int
pg_mbcliplen(const char *text, int length, int limit)
{
	int at = 0;

	while (at < length && text[at] != '\0')
	{
		int size = pg_encoding_mblen(PG_UTF8, text + at);

		if (at + size > limit)
			break;
		at += size;
	}
	return at;
}

int
pg_mbcharcliplen(const char *text, int length, int limit)
{
	int at = 0;

	for (int count = 0; at < length && text[at] != '\0' && count < limit; count++)
		at += pg_encoding_mblen(PG_UTF8, text + at);
	return at;
}

/* Days of the Julian calendar, as PostgreSQL counts them. */
int
date2j(int year, int month, int day)
{
	int julian, century;

	month += month > 2 ? 1 : 13;
	year += month > 13 ? 4799 : 4800;
	century = year / 100;
	julian = year * 365 - 32167;
	julian += year / 4 - century + century / 4;
	return julian + 7834 * month / 256 + day;
}

void
j2date(int jd, int *year, int *month, int *day)
{
	unsigned int julian = jd + 32044;
	unsigned int quad = julian / 146097;
	unsigned int extra = (julian - quad * 146097) * 4 + 3;
	int          y;

	julian += 60 + quad * 3 + extra / 146097;
	quad = julian / 1461;
	julian -= quad * 1461;
	y = (int) (julian * 4 / 1461);
	julian = (y != 0 ? (julian + 305) % 365 : (julian + 306) % 366) + 123;
	*year = y + (int) quad * 4 - 4800;
	quad = julian * 2141 / 65536;
	*day = (int) (julian - 7834 * quad / 256);
	*month = (int) ((quad + 10) % MONTHS_PER_YEAR + 1);
}

int
j2day(int date)
{
	date = (date + 1) % 7;
	return date < 0 ? date + 7 : date;
}

const int day_tab[2][13] = {{31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 0},
							{31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 0}};

/* Values of type text. */
text *
cstring_to_text_with_len(const char *string, int length)
{
	text *value = palloc(VARHDRSZ + length);

	SET_VARSIZE(value, VARHDRSZ + length);
	memcpy(VARDATA(value), string, length);
	return value;
}

char *
text_to_cstring(const text *value)
{
	return pnstrdup(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
}

struct varlena *
pg_detoast_datum_packed(struct varlena *value)
{
	return value;
}

/* What must not happen, or does not matter. */
void
check_stack_depth(void)
{
}

void
ProcessInterrupts(void)
{
}

int
pg_next_dst_boundary(const pg_time_t *time, long *offset, int *is_dst, pg_time_t *boundary,
					 long *next_offset, int *next_is_dst, const pg_tz *tz)
{
	abort();
}

bool
errstart(int level, const char *domain)
{
	abort();
}

bool
errstart_cold(int level, const char *domain)
{
	abort();
}

void
errfinish(const char *file, int line, const char *function)
{
}

int
errcode(int sqlerrcode)
{
	return 0;
}

int
errmsg(const char *format, ...)
{
	return 0;
}

int
errmsg_internal(const char *format, ...)
{
	return 0;
}

int
errdetail(const char *format, ...)
{
	return 0;
}

int
errhint(const char *format, ...)
{
	return 0;
}
