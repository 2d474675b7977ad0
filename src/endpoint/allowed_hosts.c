/*
 * allowed_hosts.c
 *		Where gateways may be: the setting quota_manager.allowed_hosts.
 */
#include "postgres.h"

#include <arpa/inet.h>

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "common/compat.h"
#include "endpoint/allowed_hosts.h"
#include "endpoint/credential.h"
#include "gateway/gateway.h"

#define MAX_HOST 256
#define BLANKS " \t\r\n"
#define ANY_PORT 0

PG_FUNCTION_INFO_V1(qm_check_base_url);

typedef enum Scheme
{
	SCHEME_ANY,
	SCHEME_HTTP,
	SCHEME_HTTPS,
} Scheme;

/* An entry of the list, or where a gateway is. */
typedef struct Origin
{
	Scheme scheme;
	char   host[MAX_HOST]; /* in lower case, an IPv6 address without brackets */
	int    port;
} Origin;

/* The list in force, read. */
typedef struct OriginList
{
	bool   allows_any; /* it is empty */
	int    count;
	Origin origins[FLEXIBLE_ARRAY_MEMBER];
} OriginList;

/* As it was written. */
static char *setting;

/* NULL: nothing is set yet, and any host is allowed. */
static const OriginList *allowed;

/*
 * Takes the next entry from a comma list, without the blanks around it; it may
 * be empty.  False: there is none left.
 */
static bool
next_entry(const char **list, const char **entry, size_t *length)
{
	const char *p = *list;
	size_t      whole;

	if (p == NULL)
		return false;
	p += strspn(p, BLANKS);
	whole = *length = strcspn(p, ",");
	while (*length > 0 && strchr(BLANKS, p[*length - 1]) != NULL)
		(*length)--;
	*entry = p;
	*list = p[whole] == '\0' ? NULL : p + whole + 1;
	return true;
}

/* Reads a port; 0 if it is none. */
static int
read_port(const char *text, size_t length)
{
	int port = 0;

	if (length == 0 || length > 5)
		return 0;
	for (size_t i = 0; i < length; i++)
	{
		if (text[i] < '0' || text[i] > '9')
			return 0;
		port = port * 10 + (text[i] - '0');
	}
	return port <= 65535 ? port : 0;
}

/* Copies a host in lower case. */
static const char *
copy_host(const char *host, size_t length, char out[MAX_HOST])
{
	if (length == 0)
		return "it has no host";
	if (length >= MAX_HOST)
		return "its host is too long";
	for (size_t i = 0; i < length; i++)
	{
		unsigned char c = (unsigned char) host[i];

		if (c <= ' ' || c >= 0x7f || strchr("/@?#\\*[]", c) != NULL)
			return "its host contains a character that hosts do not have";
		out[i] = (char) pg_ascii_tolower(c);
	}
	out[length] = '\0';
	return NULL;
}

/* Reads an entry.  NULL: it is one; otherwise what is wrong with it. */
static const char *
read_entry(const char *entry, size_t length, Origin *origin)
{
	const char *end = entry + length;
	const char *colon;
	const char *host_end;
	const char *problem;

	origin->scheme = SCHEME_ANY;
	origin->port = ANY_PORT;
	if (length >= 7 && pg_strncasecmp(entry, "http://", 7) == 0)
	{
		origin->scheme = SCHEME_HTTP;
		origin->port = 80;
		entry += 7;
	}
	else if (length >= 8 && pg_strncasecmp(entry, "https://", 8) == 0)
	{
		origin->scheme = SCHEME_HTTPS;
		origin->port = 443;
		entry += 8;
	}
	else if (memchr(entry, '/', length) != NULL)
		return "it has a path, or a scheme other than http and https";

	if (entry < end && *entry == '[')
	{
		host_end = memchr(entry, ']', end - entry);
		if (host_end == NULL)
			return "its IPv6 address is not complete";
		colon = host_end + 1 < end ? host_end + 1 : NULL;
		entry++;
		if (colon != NULL && *colon != ':')
			return "something other than a port follows its IPv6 address";
	}
	else
	{
		colon = memchr(entry, ':', end - entry);
		/* An IPv6 address may stand without brackets, and then without a port. */
		if (colon != NULL && memchr(colon + 1, ':', end - colon - 1) != NULL)
			colon = NULL;
		host_end = colon != NULL ? colon : end;
	}
	problem = copy_host(entry, host_end - entry, origin->host);
	if (problem == NULL && colon != NULL)
	{
		origin->port = read_port(colon + 1, end - colon - 1);
		if (origin->port == 0)
			return "its port is not a number from 1 to 65535";
	}
	return problem;
}

/*
 * Reads the list.  An entry that cannot be read would allow nothing, or not
 * what was meant, and is refused.
 */
static bool
check_setting(char **newval, void **extra, GucSource source)
{
	const char *list = *newval;
	const char *entry;
	size_t      length;
	size_t      most = 1;
	OriginList *origins;

	for (const char *p = list; *p != '\0'; p++)
		most += *p == ',';
	origins = guc_malloc(LOG, offsetof(OriginList, origins) + sizeof(Origin) * most);
	if (origins == NULL)
		return false;
	origins->allows_any = list[strspn(list, BLANKS)] == '\0';
	origins->count = 0;
	while (next_entry(&list, &entry, &length))
	{
		const char *problem =
			length == 0 ? NULL : read_entry(entry, length, &origins->origins[origins->count]);

		if (problem != NULL)
		{
			guc_free(origins);
			GUC_check_errdetail("Entry \"%.*s\": %s.", (int) length, entry, problem);
			GUC_check_errhint("Write host, host:port, scheme://host or scheme://host:port, "
							  "separated by commas.");
			return false;
		}
		origins->count += length > 0;
	}
	*extra = origins;
	return true;
}

/* Puts the list that was read into force. */
static void
assign_setting(const char *newval, void *extra)
{
	allowed = extra;
}

/* True if two hosts are the same: the same text, or the same address. */
static bool
same_host(const char *a, const char *b)
{
	struct in6_addr address_a;
	struct in6_addr address_b;

	if (strcmp(a, b) == 0)
		return true;
	return inet_pton(AF_INET6, a, &address_a) == 1 && inet_pton(AF_INET6, b, &address_b) == 1 &&
		   memcmp(&address_a, &address_b, sizeof(address_a)) == 0;
}

/* Why the list does not allow where a gateway is; NULL: it does. */
static const char *
origin_problem(const Origin *origin)
{
	bool host_found = false;

	if (allowed == NULL || allowed->allows_any)
		return NULL;
	for (int i = 0; i < allowed->count; i++)
	{
		const Origin *entry = &allowed->origins[i];

		if (!same_host(entry->host, origin->host))
			continue;
		if ((entry->scheme == SCHEME_ANY || entry->scheme == origin->scheme) &&
			(entry->port == ANY_PORT || entry->port == origin->port))
			return NULL;
		host_found = true;
	}
	return host_found ? "quota_manager.allowed_hosts has its host with another scheme or port"
					  : "its host is not in quota_manager.allowed_hosts";
}

/*
 * True if the list in force names this address itself.  Reads memory and
 * nothing more, so that it can be called while libcurl works.
 */
bool
address_is_listed(const char *address)
{
	for (int i = 0; allowed != NULL && i < allowed->count; i++)
		if (same_host(allowed->origins[i].host, address))
			return true;
	return false;
}

/*
 * What is wrong with a gateway's URL, its host included: a constant text;
 * NULL: nothing.
 */
const char *
base_url_problem(const char *url)
{
	const char *why = NULL;
	char        host[MAX_HOST];
	Origin      origin;
	bool        is_tls;
	size_t      length;

	if (!gateway_url_valid(url, &why, host, sizeof(host)))
		return why;
	origin.port = gateway_url_port(url, &is_tls);
	origin.scheme = is_tls ? SCHEME_HTTPS : SCHEME_HTTP;
	length = strlen(host);
	if (host[0] == '[')
		why = copy_host(host + 1, length - 2, origin.host);
	else
		why = copy_host(host, length, origin.host);
	if (why != NULL)
		return why;
	why = origin_problem(&origin);
	if (why != NULL)
		return why;
	if (gateway_host_fault(host) != NULL && !address_is_listed(origin.host))
		return "its host is a link-local, unspecified, reserved or metadata address, and "
			   "quota_manager.allowed_hosts does not name it";
	return NULL;
}

/*
 * check_base_url(text): what is wrong with a URL, or null.  One with a user
 * name has a password, too.
 */
Datum
qm_check_base_url(PG_FUNCTION_ARGS)
{
	char       *url = text_to_cstring(PG_GETARG_TEXT_PP(0));
	const char *problem = base_url_problem(url);

	if (problem == NULL)
		PG_RETURN_NULL();
	if (strchr(url, '@') != NULL)
		credential_hide_statement();
	PG_RETURN_TEXT_P(cstring_to_text(problem));
}

/* Registers the setting; called once by _PG_init. */
void
allowed_hosts_define_setting(void)
{
	DefineCustomStringVariable(
		"quota_manager.allowed_hosts", "Hosts that gateways may be on, separated by commas.",
		"Each as host, host:port, scheme://host or scheme://host:port. "
		"Empty: any host.",
		&setting, "", PGC_SUSET, GUC_SUPERUSER_ONLY, check_setting, assign_setting, NULL);
}
