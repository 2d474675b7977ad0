/*
 * journal.c
 *		A file from which the ledger is made again when the mock was killed.
 */
#include "journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What the file begins with, so that no other file is taken for one. */
static const char heading[] = "aigateway-mock journal 1\n";
#define HEADING_LENGTH ((long) sizeof(heading) - 1)

enum record_kind
{
	RECORD_APPLY,
	RECORD_SET,
	RECORD_HONOUR,
	RECORD_KINDS
};

/* What a record begins with; the bytes of user and key follow.  Only this machine reads it. */
struct record
{
	uint32_t kind;
	uint32_t action;      /* RECORD_APPLY */
	uint32_t has_quota;   /* RECORD_SET */
	uint32_t has_used;    /* RECORD_SET */
	uint32_t honour;      /* RECORD_HONOUR */
	uint32_t has_key;     /* RECORD_APPLY */
	uint32_t user_length; /* bytes */
	uint32_t key_length;  /* bytes */
	amount   quota;       /* RECORD_APPLY: the value */
	amount   used;
};

/* -1: there is none, or it is being read. */
static int file = -1;

/*
 * Appends a record in one piece.
 */
static void
write_record(const struct record *record, const char *user, const char *key)
{
	struct text text = {0};
	size_t      written = 0;

	if (file < 0)
		return;
	text_add(&text, (const char *) record, sizeof(*record));
	text_add(&text, user, record->user_length);
	text_add(&text, key, record->key_length);
	while (written < text.length)
	{
		ssize_t count = write(file, text.bytes + written, text.length - written);

		if (count < 0 && errno != EINTR)
		{
			perror("aigateway-mock: the journal cannot be written");
			exit(EXIT_FAILURE);
		}
		written += count > 0 ? (size_t) count : 0;
	}
	text_free(&text);
}

void
journal_apply(const struct change_request *request)
{
	const char   *key = request->idempotency_key;
	struct record record = {.kind = RECORD_APPLY,
							.action = request->action,
							.has_key = key != NULL,
							.user_length = (uint32_t) request->user_length,
							.key_length = key != NULL ? (uint32_t) strlen(key) : 0,
							.quota = request->value};

	write_record(&record, request->user, key != NULL ? key : "");
}

void
journal_set(const char *user, size_t user_length, const amount *quota, const amount *used)
{
	struct record record = {.kind = RECORD_SET,
							.has_quota = quota != NULL,
							.has_used = used != NULL,
							.user_length = (uint32_t) user_length,
							.quota = quota != NULL ? *quota : 0,
							.used = used != NULL ? *used : 0};

	write_record(&record, user, "");
}

void
journal_honour_idempotency(bool honour)
{
	struct record record = {.kind = RECORD_HONOUR, .honour = honour};

	write_record(&record, "", "");
}

void
journal_reset(void)
{
	if (file >= 0 && ftruncate(file, HEADING_LENGTH) != 0)
	{
		perror("aigateway-mock: the journal cannot be emptied");
		exit(EXIT_FAILURE);
	}
}

void
journal_close(void)
{
	if (file >= 0)
		close(file);
	file = -1;
}

/*
 * Does again what a record says; false if that cannot be.
 */
static bool
replay(const struct record *record, const char *user, const char *key)
{
	if (record->kind == RECORD_APPLY)
	{
		struct change_request request = {.action = (enum action) record->action,
										 .user = user,
										 .user_length = record->user_length,
										 .value = record->quota,
										 .lowest = -AMOUNT_NAN,
										 .highest = AMOUNT_NAN,
										 .idempotency_key = record->has_key ? key : NULL};

		return record->action < ACTION_COUNT && ledger_apply(&request) == LEDGER_APPLIED;
	}
	if (record->kind == RECORD_SET)
		ledger_set(user, record->user_length, record->has_quota ? &record->quota : NULL,
				   record->has_used ? &record->used : NULL);
	else
		ledger_honour_idempotency(record->honour);
	return true;
}

/*
 * Does again what the file says, up to the first record that is not whole; sets *length to where that
 * one begins.  False if the file holds something else.
 */
static bool
replay_file(FILE *input, long *length)
{
	struct record record;
	bool          valid = true;

	*length = ftell(input);
	while (valid && fread(&record, sizeof(record), 1, input) == 1)
	{
		size_t user_length = record.user_length;
		char  *names = need_memory(user_length + record.key_length + 1);
		char  *key = names + user_length;

		if (fread(names, 1, user_length + record.key_length, input) !=
			user_length + record.key_length)
		{
			free(names);
			break;
		}
		key[record.key_length] = '\0';
		valid = record.kind < RECORD_KINDS && replay(&record, names, key);
		free(names);
		*length = ftell(input);
	}
	return valid;
}

/*
 * Does again what the file says and cuts off what is not whole; an empty file becomes a journal.  False
 * if it is none or cannot be written.
 */
static bool
read_journal(FILE *input, int descriptor)
{
	char found[sizeof(heading)] = {0};
	long length;

	if (fread(found, 1, HEADING_LENGTH, input) == 0 && feof(input))
		return write(descriptor, heading, HEADING_LENGTH) == HEADING_LENGTH;
	return memcmp(found, heading, HEADING_LENGTH) == 0 && replay_file(input, &length) &&
		   ftruncate(descriptor, length) == 0;
}

/*
 * Reads the file and goes on with it; see the header.
 */
bool
journal_open(const char *path)
{
	int   descriptor = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	FILE *input = descriptor >= 0 ? fopen(path, "re") : NULL;
	bool  valid;

	if (input == NULL)
	{
		fprintf(stderr, "aigateway-mock: %s: %s\n", path, strerror(errno));
		return false;
	}
	valid = read_journal(input, descriptor);
	fclose(input);
	if (valid)
		file = descriptor;
	else
		fprintf(stderr, "aigateway-mock: %s is no journal\n", path);
	return valid;
}
