/*
 * listing.c
 *		The list of applied changes as a reply that is made while it is sent.
 */
#include "listing.h"

#include <stdlib.h>
#include <string.h>

#include <microhttpd.h>

#include "gateway.h"

#define PIECE 32768

struct listing
{
	enum ledger_format format;
	uint64_t           generation;
	uint64_t           next;
	uint64_t           last;
	const char        *ending; /* what follows the last line; NULL once it is written */
	struct text        pending;
	size_t             sent; /* of pending */
};

/*
 * Called by libmicrohttpd for the next bytes; makes more when all are sent.
 */
static ssize_t
read_listing(void *context, uint64_t position, char *buffer, size_t room)
{
	struct listing *listing = context;
	size_t          length;

	(void) position;
	if (listing->sent == listing->pending.length)
	{
		listing->sent = 0;
		listing->pending.length = 0;
		if (!ledger_list(listing->format, gateway_dialect()->scale, listing->generation,
						 &listing->next, listing->last, PIECE, &listing->pending))
			return MHD_CONTENT_READER_END_WITH_ERROR;
		if (listing->next > listing->last && listing->ending != NULL)
		{
			text_add_string(&listing->pending, listing->ending);
			listing->ending = NULL;
		}
	}
	length = listing->pending.length - listing->sent;
	if (length == 0)
		return MHD_CONTENT_READER_END_OF_STREAM;
	if (length > room)
		length = room;
	memcpy(buffer, listing->pending.bytes + listing->sent, length);
	listing->sent += length;
	return (ssize_t) length;
}

/*
 * Called by libmicrohttpd when the reply is over, however it ended.
 */
static void
free_listing(void *context)
{
	struct listing *listing = context;

	text_free(&listing->pending);
	free(listing);
}

/*
 * Answers with the list; see the header.
 */
void
listing_answer(enum ledger_format format, uint64_t from, struct answer *answer)
{
	static const char heading[] = "seq\tuser\taction\tamount\tidempotency_key\tbalance_after\n";
	struct listing   *listing = need_memory(sizeof(*listing));

	*listing = (struct listing){.format = format, .next = from};
	listing->generation = ledger_generation(&listing->last);
	listing->ending = format == LEDGER_JSON ? "]\n" : "";
	text_add_string(&listing->pending, format == LEDGER_JSON ? "[\n" : heading);

	answer->ending = END_REPLY;
	answer->status = MHD_HTTP_OK;
	answer->content_type = format == LEDGER_JSON ? type_json : type_tsv;
	answer->stream = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, PIECE, read_listing,
													   listing, free_listing);
}
