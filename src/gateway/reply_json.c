/*
 * reply_json.c
 *		What is read from a gateway's JSON reply, without trusting it.
 *
 * The only file that includes json-c: its json_object and a function of
 * PostgreSQL's headers have the same name.
 */
#include "gateway/reply_json.h"

#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "gateway/buffer.h"
#include "gateway/text.h"

/* Replies nest two deep. */
#define MAX_DEPTH 8

/* How much of "code" and "message" is read. */
#define MAX_LINE_SOURCE 4096

/*
 * How many members the objects of a text have that is known to be JSON: the
 * colons outside of strings.  (json-c takes single quotes too.)
 */
static size_t
written_members(const char *text, size_t length)
{
	size_t count = 0;
	char   quote = '\0';
	size_t i;

	for (i = 0; i < length; i++)
	{
		char c = text[i];

		if (quote != '\0')
		{
			if (c == '\\')
				i++;
			else if (c == quote)
				quote = '\0';
		}
		else if (c == '"' || c == '\'')
			quote = c;
		else if (c == ':')
			count++;
	}
	return count;
}

/*
 * How many members json-c kept; fewer than were written if a name occurs
 * twice in one object.  The depth is bounded by the parser's.
 */
static size_t
kept_members(json_object *value)
{
	size_t count = 0;

	if (json_object_is_type(value, json_type_object))
	{
		json_object_object_foreach(value, name, member)
		{
			(void) name;
			count += 1 + kept_members(member);
		}
	}
	else if (json_object_is_type(value, json_type_array))
	{
		size_t length = json_object_array_length(value);
		size_t i;

		for (i = 0; i < length; i++)
			count += kept_members(json_object_array_get_idx(value, i));
	}
	return count;
}

/* Appends one UTF-16 unit as JSON escapes it. */
static bool
append_escape(Buffer *out, unsigned unit)
{
	char escape[16];

	snprintf(escape, sizeof(escape), "\\u%04x", unit);
	return buffer_append_text(out, escape);
}

/*
 * Appends text with everything but ASCII escaped.  False if it is not UTF-8,
 * or out of memory.
 */
static bool
append_ascii(Buffer *out, const char *text, size_t length)
{
	size_t i = 0;

	while (i < length)
	{
		size_t   begin = i;
		size_t   size;
		uint32_t code;
		bool     ok;

		while (i < length && (unsigned char) text[i] < 0x80)
			i++;
		if (!buffer_append(out, text + begin, i - begin))
			return false;
		if (i == length)
			return true;

		size = text_character(text + i, length - i, &code);
		if (size == 0)
			return false;
		if (code < 0x10000)
			ok = append_escape(out, code);
		else
			ok = append_escape(out, 0xd800 + ((code - 0x10000) >> 10)) &&
				 append_escape(out, 0xdc00 + ((code - 0x10000) & 0x3ff));
		if (!ok)
			return false;
		i += size;
	}
	return true;
}

/*
 * Parses a text that must be one object and nothing more; NULL if it is not.
 * json-c is given ASCII only: what it does with the rest depends on its
 * version and flags (0.18, asked to be strict, refuses it).
 */
static json_object *
parse_object(const char *text, size_t length)
{
	Buffer               ascii = {0};
	struct json_tokener *tokener;
	json_object         *value = NULL;
	bool                 whole = false;

	while (length > 0 && strchr(" \t\r\n", text[length - 1]) != NULL)
		length--;
	if (length == 0)
		return NULL;

	tokener = json_tokener_new_ex(MAX_DEPTH);
	if (tokener && append_ascii(&ascii, text, length) && ascii.used <= INT_MAX)
	{
		json_tokener_set_flags(tokener, JSON_TOKENER_STRICT);
		value = json_tokener_parse_ex(tokener, ascii.data, (int) ascii.used);
		whole = json_tokener_get_error(tokener) == json_tokener_success &&
				json_tokener_get_parse_end(tokener) == ascii.used &&
				json_object_is_type(value, json_type_object) &&
				kept_members(value) == written_members(ascii.data, ascii.used);
	}
	if (tokener)
		json_tokener_free(tokener);
	buffer_free(&ascii);
	if (!whole)
	{
		json_object_put(value);
		return NULL;
	}
	return value;
}

/* The member of an object if it is there and of the type; otherwise NULL. */
static json_object *
member_of_type(json_object *object, const char *name, json_type type)
{
	json_object *member;

	if (!object || !json_object_object_get_ex(object, name, &member) ||
		!json_object_is_type(member, type))
		return NULL;
	return member;
}

/* Copies a string member that fits and holds no NUL; otherwise leaves "". */
static void
copy_string(json_object *object, const char *name, char *out, size_t size)
{
	json_object *member = member_of_type(object, name, json_type_string);
	size_t       length = member ? (size_t) json_object_get_string_len(member) : 0;

	if (length > 0 && length < size && strlen(json_object_get_string(member)) == length)
		memcpy(out, json_object_get_string(member), length + 1);
}

/*
 * Copies a number as it was written.  json-c keeps the text of a number with
 * a fraction or an exponent; an integer it saturates at INT64_MIN and
 * UINT64_MAX, so that those two values can be anything.
 */
static void
copy_number(json_object *object, const char *name, char *out, size_t size)
{
	json_object *member = member_of_type(object, name, json_type_int);
	const char  *text;

	if (member)
	{
		if (json_object_get_int64(member) == INT64_MIN ||
			json_object_get_uint64(member) == UINT64_MAX)
			return;
	}
	else
	{
		member = member_of_type(object, name, json_type_double);
		if (!member)
			return;
	}
	text = json_object_to_json_string(member);
	if (text && strlen(text) < size)
		memcpy(out, text, strlen(text) + 1);
}

/* Copies the beginning of a string member as a line. */
static void
copy_beginning(json_object *object, const char *name, const char *secret, char *out, size_t size)
{
	json_object *member = member_of_type(object, name, json_type_string);
	size_t       length = member ? (size_t) json_object_get_string_len(member) : 0;

	if (length > 0)
		text_line(out, size, json_object_get_string(member), length, secret);
}

/* Writes "code: message", either alone if the other is missing. */
static void
copy_line(json_object *reply, const char *secret, char *out, size_t size)
{
	json_object *parts[2];
	char         joined[MAX_LINE_SOURCE * 2 + 2];
	size_t       used = 0;
	int          i;

	parts[0] = member_of_type(reply, "code", json_type_string);
	parts[1] = member_of_type(reply, "message", json_type_string);
	for (i = 0; i < 2; i++)
	{
		size_t length = parts[i] ? (size_t) json_object_get_string_len(parts[i]) : 0;

		if (length == 0)
			continue;
		if (length > MAX_LINE_SOURCE)
			length = MAX_LINE_SOURCE;
		if (used > 0)
		{
			joined[used++] = ':';
			joined[used++] = ' ';
		}
		memcpy(joined + used, json_object_get_string(parts[i]), length);
		used += length;
	}
	text_line(out, size, joined, used, secret);
}

/*
 * Reads a reply.  False, and fields empty, unless it is exactly one JSON
 * object, valid UTF-8, not nested deeply, with no name twice in one object.
 */
bool
reply_json_read(const char *text, size_t length, const ReplyShape *shape, ReplyFields *fields)
{
	json_object *reply = parse_object(text, length);
	json_object *answer = reply;
	json_object *success;
	json_object *user;

	memset(fields, 0, sizeof(*fields));
	if (!reply)
		return false;

	success = member_of_type(reply, "success", json_type_boolean);
	if (success)
	{
		fields->succeeded = json_object_get_boolean(success);
		fields->failed = !fields->succeeded;
	}
	copy_string(reply, "code", fields->code, sizeof(fields->code));
	copy_beginning(reply, "message", shape->secret, fields->message, sizeof(fields->message));
	copy_line(reply, shape->secret, fields->line, sizeof(fields->line));

	if (shape->object_member)
		answer = member_of_type(reply, shape->object_member, json_type_object);
	copy_string(answer, "type", fields->type, sizeof(fields->type));
	copy_number(answer, "quota", fields->quota, sizeof(fields->quota));
	user = member_of_type(answer, shape->user_member, json_type_string);
	if (user && shape->user_id)
		fields->other_user =
			(size_t) json_object_get_string_len(user) != strlen(shape->user_id) ||
			memcmp(json_object_get_string(user), shape->user_id, strlen(shape->user_id)) != 0;

	json_object_put(reply);
	return true;
}
