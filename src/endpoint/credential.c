/*
 * credential.c
 *		Keys of gateways, by reference: env:, file: or row:.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "pgstat.h"
#include "storage/fd.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"

#include "endpoint/credential.h"
#include "endpoint/endpoint_settings.h"
#include "common/statement.h"

#define ENV_PREFIX "env:"
#define ENV_NAME_PREFIX "QUOTA_MANAGER_"
#define FILE_PREFIX "file:"
#define ROW_PREFIX "row:"
#define MAX_NAME 200

/* What the log and pg_stat_activity have for a statement that may hold a key. */
#define HIDDEN_STATEMENT "(not shown, since it may hold a key)"

PG_FUNCTION_INFO_V1(qm_check_credential_reference);
PG_FUNCTION_INFO_V1(qm_set_credential);
PG_FUNCTION_INFO_V1(qm_hide_statement);

static Statement read_row = {
	"SELECT c.secret FROM quota_manager.quota_credential c WHERE c.name = $1", {TEXTOID}};

static Statement write_row = {
	"INSERT INTO quota_manager.quota_credential (name, secret) VALUES ($1, $2)"
	" ON CONFLICT (name) DO UPDATE SET secret = $2",
	{TEXTOID, TEXTOID}};

/* If text begins with prefix, returns what follows it, otherwise NULL. */
static const char *
after_prefix(const char *text, const char *prefix)
{
	size_t length = strlen(prefix);

	return strncmp(text, prefix, length) == 0 ? text + length : NULL;
}

/*
 * True if name has 1 to MAX_NAME characters, all of them ASCII letters, digits
 * or listed in others.
 */
static bool
is_name(const char *name, const char *others)
{
	const char *p;

	for (p = name; *p != '\0'; p++)
	{
		bool is_letter = (*p >= 'A' && *p <= 'Z') || (*p >= 'a' && *p <= 'z');

		if (!is_letter && !(*p >= '0' && *p <= '9') && strchr(others, *p) == NULL)
			return false;
	}
	return p > name && p - name <= MAX_NAME;
}

/* What is wrong with the form of a reference: a constant text; NULL: nothing. */
const char *
credential_reference_problem(const char *reference)
{
	const char *name;

	if ((name = after_prefix(reference, ENV_PREFIX)) != NULL)
	{
		name = after_prefix(name, ENV_NAME_PREFIX);
		if (name == NULL || !is_name(name, "_"))
			return "an environment variable's name must begin with " ENV_NAME_PREFIX
				   " and go on with letters, digits and _";
	}
	else if ((name = after_prefix(reference, FILE_PREFIX)) != NULL)
	{
		if (name[0] == '.' || !is_name(name, "._-"))
			return "a file's name must consist of letters, digits, _, - and ., and not begin "
				   "with a dot";
	}
	else if ((name = after_prefix(reference, ROW_PREFIX)) != NULL)
	{
		if (!is_name(name, "._-"))
			return "a row's name must consist of letters, digits, _, - and .";
	}
	else
		return "it begins neither with env: nor with file: nor with row:";
	return NULL;
}

/*
 * From here to its end the statement that the client has sent is not shown,
 * neither with errors and whatever else the log has it with, nor in
 * pg_stat_activity.  Not what logs statements for themselves: that has its text
 * from elsewhere.
 */
void
credential_hide_statement(void)
{
	debug_query_string = HIDDEN_STATEMENT;
	pgstat_report_activity(STATE_RUNNING, HIDDEN_STATEMENT);
}

/*
 * check_credential_reference(text): what is wrong with a reference, or null.
 * Then it may be the key itself, written there by mistake.
 */
Datum
qm_check_credential_reference(PG_FUNCTION_ARGS)
{
	char       *reference = text_to_cstring(PG_GETARG_TEXT_PP(0));
	const char *problem = credential_reference_problem(reference);

	if (problem == NULL)
		PG_RETURN_NULL();
	credential_hide_statement();
	PG_RETURN_TEXT_P(cstring_to_text(problem));
}

/*
 * Reads a file of the directory of keys into buffer, and returns how many
 * bytes; -1 with *problem set if that cannot be done.  Links are not followed,
 * and a name cannot lead out of the directory.
 */
static ssize_t
read_file(const char *name, char *buffer, size_t size, const char **problem)
{
	char       *path;
	int         file;
	struct stat status;
	ssize_t     length = -1;

	if (endpoint_credential_directory[0] == '\0')
	{
		*problem = "quota_manager.credential_directory is not set";
		return -1;
	}
	path = psprintf("%s/%s", endpoint_credential_directory, name);
	file = OpenTransientFile(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | PG_BINARY);
	pfree(path);
	if (file < 0)
	{
		*problem = errno == ENOENT  ? "the file of the key does not exist"
				   : errno == ELOOP ? "the file of the key is a link"
									: "the file of the key cannot be opened";
		return -1;
	}
	if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode))
		*problem = "the file of the key is not a regular file";
	else if (status.st_size > (off_t) size)
		*problem = "the file of the key is too long";
	else if ((length = read(file, buffer, size)) < 0)
		*problem = "the file of the key cannot be read";
	CloseTransientFile(file);
	return length;
}

/*
 * Reads a row of quota_credential, which its owner alone can.  The result is allocated in
 * memory; NULL: there is no such row.
 */
static char *
read_credential_row(const char *name, MemoryContext memory)
{
	MemoryContext caller = MemoryContextSwitchTo(memory);
	char         *secret = NULL;

	if (statement_run(&read_row, ARGS(arg_text(name))) == 1)
		secret = result_text(0, 1);
	MemoryContextSwitchTo(caller);
	SPI_freetuptable(SPI_tuptable);
	return secret;
}

/* True if every byte can stand in an HTTP header. */
static bool
is_header_value(const char *text)
{
	for (; *text != '\0'; text++)
		if ((unsigned char) *text < 0x20 || *text == 0x7f)
			return false;
	return true;
}

/*
 * Fetches the key a reference stands for, allocated in memory.  NULL: it
 * cannot be had, and *problem says why (a constant text).  SPI must be
 * connected; the caller needs no right to read quota_credential.
 */
char *
credential_fetch(const char *reference, MemoryContext memory, const char **problem)
{
	const char *name;
	char       *secret = NULL;

	*problem = credential_reference_problem(reference);
	if (*problem != NULL)
		return NULL;

	if ((name = after_prefix(reference, ENV_PREFIX)) != NULL)
	{
		const char *value = getenv(name);

		if (value == NULL)
			*problem = "the environment variable of the key is not set";
		else
			secret = MemoryContextStrdup(memory, value);
	}
	else if ((name = after_prefix(reference, FILE_PREFIX)) != NULL)
	{
		char    buffer[CREDENTIAL_MAX_LENGTH];
		ssize_t length = read_file(name, buffer, sizeof(buffer), problem);

		if (length > 0 && buffer[length - 1] == '\n')
			length--;
		if (length > 0 && buffer[length - 1] == '\r')
			length--;
		if (length >= 0)
		{
			secret = MemoryContextAlloc(memory, length + 1);
			memcpy(secret, buffer, length);
			secret[length] = '\0';
			if (strlen(secret) != length)
				*problem = "the key contains a zero byte";
		}
		explicit_bzero(buffer, sizeof(buffer));
	}
	else
	{
		secret = read_credential_row(reference + strlen(ROW_PREFIX), memory);
		if (secret == NULL)
			*problem = "the row of the key does not exist in quota_credential";
	}

	if (secret != NULL && *problem == NULL)
	{
		if (secret[0] == '\0')
			*problem = "the key is empty";
		else if (strlen(secret) > CREDENTIAL_MAX_LENGTH)
			*problem = "the key is too long";
		else if (!is_header_value(secret))
			*problem = "the key contains a control character";
	}
	if (*problem != NULL)
	{
		credential_forget(secret);
		return NULL;
	}
	return secret;
}

/* Overwrites and frees a key; NULL is allowed. */
void
credential_forget(char *secret)
{
	if (secret == NULL)
		return;
	explicit_bzero(secret, strlen(secret));
	pfree(secret);
}

/* Trigger hide_statement(), before any row is read. */
Datum
qm_hide_statement(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("hide_statement() is a trigger")));
	credential_hide_statement();
	return PointerGetDatum(NULL);
}

/*
 * Throws the error that was caught without what may show a key: the statement,
 * also where it stands in the context, parameters, and the failing row.
 */
static void
rethrow_without_key(MemoryContext memory)
{
	ErrorData *error;

	MemoryContextSwitchTo(memory);
	error = CopyErrorData();
	FlushErrorState();
	error->hide_stmt = true;
	error->context = NULL;
	if (ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION)
		error->detail = error->detail_log = NULL;
	ReThrowError(error);
}

/*
 * set_credential(name, secret): writes a key with the rights of the current
 * user; an error of it does not take the key into the log, as one of an INSERT
 * does.
 */
Datum
qm_set_credential(PG_FUNCTION_ARGS)
{
	MemoryContext memory = CurrentMemoryContext;

	credential_hide_statement();
	PG_TRY();
	{
		SPI_connect();
		(void) statement_run_as_user(&write_row, ARGS({PG_GETARG_DATUM(0), PG_ARGISNULL(0)},
													  {PG_GETARG_DATUM(1), PG_ARGISNULL(1)}));
		SPI_finish();
	}
	PG_CATCH();
	{
		rethrow_without_key(memory);
	}
	PG_END_TRY();
	PG_RETURN_VOID();
}
