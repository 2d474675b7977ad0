/*
 * huge.c
 *		Replies far larger than any client should read; they are made while they are sent.
 */
#include "huge.h"

#include <stdlib.h>
#include <string.h>

#include <microhttpd.h>

#define PIECE 32768

struct huge
{
	struct text head;
	const char *tail;
	uint64_t    fill; /* bytes between head and tail */
};

/*
 * Copies what stands at a position of a part of the body; returns how much that is.
 */
static size_t
copy_part(const char *part, uint64_t length, uint64_t position, char *buffer, size_t room)
{
	uint64_t left = length - position;
	size_t   size = left < room ? (size_t) left : room;

	if (part != NULL)
		memcpy(buffer, part + position, size);
	else
		memset(buffer, 'x', size);
	return size;
}

/*
 * Called by libmicrohttpd for the next bytes.
 */
static ssize_t
read_huge(void *context, uint64_t position, char *buffer, size_t room)
{
	const struct huge *huge = context;

	if (position < huge->head.length)
		return (ssize_t) copy_part(huge->head.bytes, huge->head.length, position, buffer, room);
	position -= huge->head.length;
	if (position < huge->fill)
		return (ssize_t) copy_part(NULL, huge->fill, position, buffer, room);
	position -= huge->fill;
	if (position < strlen(huge->tail))
		return (ssize_t) copy_part(huge->tail, strlen(huge->tail), position, buffer, room);
	return MHD_CONTENT_READER_END_OF_STREAM;
}

/*
 * Called by libmicrohttpd when the reply is over, however it ended.
 */
static void
free_huge(void *context)
{
	struct huge *huge = context;

	text_free(&huge->head);
	free(huge);
}

/*
 * Answers with a long body; see the header.
 */
void
huge_answer(uint64_t size, struct answer *answer)
{
	struct huge *huge = need_memory(sizeof(*huge));
	const char  *body;
	size_t       length;
	bool         is_object;
	uint64_t     total;

	answer_body(answer, &body, &length);
	is_object = length > 0 && body[length - 1] == '}';
	*huge = (struct huge){.tail = is_object ? "\"}" : ""};
	text_add(&huge->head, body, is_object ? length - 1 : length);
	if (is_object)
		text_add_string(&huge->head, ",\"filler\":\"");
	total = huge->head.length + strlen(huge->tail);
	if (total < size)
	{
		huge->fill = size - total;
		total = size;
	}
	answer->stream = MHD_create_response_from_callback(total, PIECE, read_huge, huge, free_huge);
}
