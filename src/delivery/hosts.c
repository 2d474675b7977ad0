/*
 * hosts.c
 *		Where gateways may be: the setting quota_manager.allowed_hosts.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"

#include "delivery/hosts.h"
#include "delivery/settings.h"
#include "gateway/gateway.h"

#define MAX_HOST 256

PG_FUNCTION_INFO_V1(qm_check_base_url);

/*
 * True if host, in lower case, is an element of the comma list, or the list
 * is empty.  An IPv6 address may stand there with or without its brackets.
 */
static bool
host_is_allowed(const char *host, const char *list)
{
	static const char blanks[] = " \t\r\n";
	const char       *p = list + strspn(list, blanks);
	size_t            host_length = strlen(host);

	if (*p == '\0')
		return true;
	if (host[0] == '[' && host_length > 2)
	{
		host++;
		host_length -= 2;
	}
	for (;;)
	{
		size_t whole;
		size_t length;

		p += strspn(p, blanks);
		whole = length = strcspn(p, ",");
		while (length > 0 && strchr(blanks, p[length - 1]) != NULL)
			length--;
		if (length > 2 && p[0] == '[' && p[length - 1] == ']')
		{
			if (length - 2 == host_length && pg_strncasecmp(p + 1, host, host_length) == 0)
				return true;
		}
		else if (length == host_length && pg_strncasecmp(p, host, host_length) == 0)
			return true;
		if (p[whole] == '\0')
			return false;
		p += whole + 1;
	}
}

const char *
base_url_problem(const char *url)
{
	const char *why = NULL;
	char        host[MAX_HOST];

	if (!gateway_url_valid(url, &why, host, sizeof(host)))
		return why;
	if (!host_is_allowed(host, delivery_allowed_hosts))
		return "its host is not in quota_manager.allowed_hosts";
	return NULL;
}

/*
 * check_base_url(text): what is wrong with a URL, or null.
 */
Datum
qm_check_base_url(PG_FUNCTION_ARGS)
{
	char       *url = text_to_cstring(PG_GETARG_TEXT_PP(0));
	const char *problem = base_url_problem(url);

	if (problem == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(problem));
}
