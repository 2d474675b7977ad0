/*
 * garble.c
 *		Replies in JSON that are wrong in one way each.
 */
#define _GNU_SOURCE /* memmem */
#include "garble.h"

#include <stdbool.h>
#include <string.h>

#define NESTING 100000

/* A reply that is JSON, taken apart around what decides in it: before "name":value after */
struct parts
{
	struct text json;
	const char *before;
	size_t      before_length;
	const char *name;
	const char *value;
	size_t      value_length;
	const char *after;
	size_t      after_length;
};

/*
 * Finds the member of this name; false if there is none.  Quotes within strings are escaped, so what is
 * found is no part of one.
 */
static bool
find_member(struct parts *parts, const char *name)
{
	const char *end = parts->json.bytes + parts->json.length;
	struct text pattern = {0};
	const char *found;

	text_format(&pattern, "\"%s\":", name);
	found = memmem(parts->json.bytes, parts->json.length, pattern.bytes, pattern.length);
	if (found != NULL)
	{
		parts->before = parts->json.bytes;
		parts->before_length = (size_t) (found - parts->before);
		parts->name = name;
		parts->value = found + pattern.length;
		for (parts->after = parts->value;
			 parts->after < end && strchr(",}", *parts->after) == NULL;)
			parts->after++;
		parts->value_length = (size_t) (parts->after - parts->value);
		parts->after_length = (size_t) (end - parts->after);
	}
	text_free(&pattern);
	return found != NULL;
}

/*
 * Takes a reply apart; the parts are to be freed.
 */
static struct parts
take_apart(const char *reply, size_t length)
{
	struct parts parts = {0};

	text_add(&parts.json, reply, length);
	if (!find_member(&parts, "quota") && !find_member(&parts, "success"))
	{
		parts.json.length = 0;
		text_add_string(&parts.json, "{\"message\":");
		text_add_json(&parts.json, reply, length);
		text_add_string(&parts.json, ",\"success\":true}");
		find_member(&parts, "success");
	}
	return parts;
}

/*
 * Appends the reply with other words for what decides in it, between quotes that are or are not there.
 */
static void
replace(const char *reply, size_t length, const char *separator, const char *value,
		const char *quote, struct text *wrong)
{
	struct parts parts = take_apart(reply, length);

	text_add(wrong, parts.before, parts.before_length);
	text_format(wrong, "\"%s\"%s%s", parts.name, separator, quote);
	if (value != NULL)
		text_add_string(wrong, value);
	else
		text_add(wrong, parts.value, parts.value_length);
	text_add_string(wrong, quote);
	text_add(wrong, parts.after, parts.after_length);
	text_free(&parts.json);
}

/*
 * Appends the reply with something before its first member.
 */
static void
insert(const char *reply, size_t length, const struct text *member, struct text *wrong)
{
	struct parts parts = take_apart(reply, length);

	text_add_string(wrong, "{");
	text_add(wrong, member->bytes, member->length);
	text_add(wrong, parts.json.bytes + 1, parts.json.length - 1);
	text_free(&parts.json);
}

/*
 * The colon before what decides is missing.
 */
void
garble_unparsable(const char *reply, size_t length, struct text *wrong)
{
	replace(reply, length, " ", NULL, "", wrong);
}

/*
 * The last character is missing.
 */
void
garble_truncated(const char *reply, size_t length, struct text *wrong)
{
	text_add(wrong, reply, length > 0 ? length - 1 : 0);
}

/*
 * An array of an array of an array ...
 */
void
garble_nested(const char *reply, size_t length, struct text *wrong)
{
	struct text member = {0};

	text_add_string(&member, "\"nested\":");
	for (int i = 0; i < NESTING; i++)
		text_add_string(&member, "[");
	for (int i = 0; i < NESTING; i++)
		text_add_string(&member, "]");
	text_add_string(&member, ",");
	insert(reply, length, &member, wrong);
	text_free(&member);
}

/*
 * Bytes that no UTF-8 holds.
 */
void
garble_not_utf8(const char *reply, size_t length, struct text *wrong)
{
	struct text member = {0};

	text_add_string(&member, "\"bytes\":\"\xff\xc0\x80\",");
	insert(reply, length, &member, wrong);
	text_free(&member);
}

/*
 * What decides stands there twice, and the first one says something else.
 */
void
garble_duplicate(const char *reply, size_t length, struct text *wrong)
{
	struct parts parts = take_apart(reply, length);

	text_add(wrong, parts.before, parts.before_length);
	text_format(wrong, "\"%s\":%s,", parts.name,
				strcmp(parts.name, "success") == 0 ? "false" : "1000000");
	text_add(wrong, parts.json.bytes + parts.before_length,
			 parts.json.length - parts.before_length);
	text_free(&parts.json);
}

/*
 * What decides is a text.
 */
void
garble_quoted(const char *reply, size_t length, struct text *wrong)
{
	replace(reply, length, ":", NULL, "\"", wrong);
}

/*
 * What decides is a number that no floating point holds.
 */
void
garble_exponent(const char *reply, size_t length, struct text *wrong)
{
	replace(reply, length, ":", "1e400", "", wrong);
}

/*
 * What decides is a number of 20 digits: within 64 bits, if these have no sign.
 */
void
garble_digits(const char *reply, size_t length, struct text *wrong)
{
	replace(reply, length, ":", "12345678901234567890", "", wrong);
}
