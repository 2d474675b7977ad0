/*
 * reply_json.h
 *		What is read from a gateway's JSON reply, without trusting it.
 *
 * json-c is used behind this header only.  Everything it allocates is freed
 * before reply_json_read returns.
 */
#ifndef QM_GATEWAY_REPLY_JSON_H
#define QM_GATEWAY_REPLY_JSON_H

#include <stdbool.h>
#include <stddef.h>

/* Which fields of a reply to read. */
typedef struct ReplyShape
{
	const char *object_member; /* of the reply, holding the answer; NULL: the reply is the answer */
	const char *user_member;   /* of the answer: whom it is about */
	const char *user_id;       /* the user it must name, if it names one; NULL: not compared */
	const char *secret;        /* must not show in line; NULL: none */
} ReplyShape;

typedef struct ReplyFields
{
	bool succeeded;  /* "success" is true */
	bool failed;     /* "success" is false */
	bool other_user; /* the answer names another user */
	char type[32];   /* of the answer; "" if it is not there or longer */
	char quota[64];  /* number of the answer as it was written; "" if it is not a number, longer, or
					  * beyond exact representation */
	char code[64];   /* "" if it is not there, empty or longer */
	char message[128]; /* its beginning, made by text_line */
	char line[512];    /* "code: message" as far as they are there, made by text_line */
} ReplyFields;

extern bool reply_json_read(const char *text, size_t length, const ReplyShape *shape,
							ReplyFields *fields);

#endif /* QM_GATEWAY_REPLY_JSON_H */
