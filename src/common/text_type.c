/*
 * text_type.c
 *		Output and binary input of types that are stored as a canonical text.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "libpq/pqformat.h"
#include "utils/builtins.h"

#include "common/compat.h"
#include "common/text_type.h"

/* An output function: the canonical text. */
Datum
text_type_out(FunctionCallInfo fcinfo)
{
	PG_RETURN_CSTRING(text_to_cstring(PG_GETARG_TEXT_PP(0)));
}

/* A send function: the canonical text in the client's encoding. */
Datum
text_type_send(FunctionCallInfo fcinfo)
{
	text          *canonical = PG_GETARG_TEXT_PP(0);
	StringInfoData message;

	pq_begintypsend(&message);
	pq_sendtext(&message, VARDATA_ANY(canonical), VARSIZE_ANY_EXHDR(canonical));
	PG_RETURN_BYTEA_P(pq_endtypsend(&message));
}

/*
 * The text that a receive function was given in the client's encoding, as the
 * input function of the type takes it.
 */
char *
text_type_received(FunctionCallInfo fcinfo)
{
	StringInfo message = (StringInfo) PG_GETARG_POINTER(0);
	int        length;

	return pq_getmsgtext(message, message->len - message->cursor, &length);
}
