/*
 * url.c
 *		Which base URLs a gateway may have.
 *
 * The grammar is narrower than RFC 3986, so that an accepted URL means the
 * same to every reader: the host shown by gateway_url_valid is the one libcurl
 * connects to.  (Forms such as http://a\@b/, http://0x7f.1/ or a host in
 * percent signs are where URL parsers disagree.)
 */
#include "gateway/gateway.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "gateway/text.h"

#define DIGITS "0123456789"
#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define UPPER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define HOST_CHARS DIGITS LOWER UPPER "_-."
#define IPV6_CHARS DIGITS "abcdefABCDEF:."

/* The longest host name DNS allows is 253 characters. */
#define MAX_HOST 253

/*
 * True if a host name ends in a label that reads as a number, which makes it
 * an address to some readers and a name to others.
 */
static bool
ends_in_number(const char *host)
{
	const char *label = strrchr(host, '.');

	label = label ? label + 1 : host;
	if (label[0] == '0' && (label[1] == 'x' || label[1] == 'X'))
		return strspn(label + 2, DIGITS "abcdefABCDEF") == strlen(label + 2);
	return strspn(label, DIGITS) == strlen(label);
}

/* What is wrong with a host (without port); NULL: nothing. */
static const char *
host_fault(const char *host)
{
	size_t        length = strlen(host);
	unsigned char address[sizeof(struct in6_addr)];

	if (host[0] == '[')
	{
		char inner[MAX_HOST];

		if (host[length - 1] != ']' || length < 4)
			return "the IPv6 address is not complete";
		memcpy(inner, host + 1, length - 2);
		inner[length - 2] = '\0';
		if (strspn(inner, IPV6_CHARS) != length - 2 || inet_pton(AF_INET6, inner, address) != 1)
			return "the IPv6 address is not valid";
		return NULL;
	}
	if (strspn(host, HOST_CHARS) != length)
		return "the host contains a character that host names do not have";
	if (host[0] == '.' || host[length - 1] == '.' || strstr(host, "..") != NULL)
		return "the host has an empty label";
	if (ends_in_number(host) && inet_pton(AF_INET, host, address) != 1)
		return "the host is a number but not an IPv4 address of four decimal parts";
	return NULL;
}

/* What is wrong with a port; NULL: nothing. */
static const char *
port_fault(const char *port, size_t length)
{
	unsigned value = 0;
	size_t   i;

	if (length == 0 || length > 5 || strspn(port, DIGITS) < length)
		return "the port is not a number from 1 to 65535";
	for (i = 0; i < length; i++)
		value = value * 10 + (unsigned) (port[i] - '0');
	if (value < 1 || value > 65535)
		return "the port is not a number from 1 to 65535";
	return NULL;
}

/* What is wrong with the URL; NULL: nothing, and host is filled. */
static const char *
url_fault(const char *url, char host[MAX_HOST + 1])
{
	const char *authority;
	const char *colon;
	const char *fault;
	size_t      length;
	size_t      host_length;
	size_t      i;

	if (strncasecmp(url, "http://", 7) == 0)
		authority = url + 7;
	else if (strncasecmp(url, "https://", 8) == 0)
		authority = url + 8;
	else
		return "it does not begin with http:// or https://";
	if (!text_is_visible(url))
		return "it contains a blank, a control character or one that is not ASCII";
	if (strchr(url, '?') != NULL)
		return "it has a query";
	if (strchr(url, '#') != NULL)
		return "it has a fragment";
	if (strchr(url, '\\') != NULL)
		return "it contains a backslash";

	length = strcspn(authority, "/");
	if (memchr(authority, '@', length) != NULL)
		return "it contains a user name or a password";

	colon = authority[0] == '[' ? memchr(authority, ']', length) : authority;
	if (colon != NULL)
		colon = memchr(colon, ':', length - (size_t) (colon - authority));
	host_length = colon != NULL ? (size_t) (colon - authority) : length;
	if (host_length == 0)
		return "it has no host";
	if (host_length > MAX_HOST)
		return "the host is too long";
	for (i = 0; i < host_length; i++)
	{
		host[i] = authority[i];
		if (host[i] >= 'A' && host[i] <= 'Z')
			host[i] += 'a' - 'A';
	}
	host[host_length] = '\0';

	fault = host_fault(host);
	if (fault == NULL && colon != NULL)
		fault = port_fault(colon + 1, length - host_length - 1);
	return fault;
}

/*
 * True if url is an http or https URL with a host, without user, query or
 * fragment.  Otherwise *why says what is wrong (a constant text).  With
 * host_size > 0 the lower-case host goes to host, an IPv6 address in its
 * brackets; 256 bytes are always enough.  Only ASCII is accepted: an
 * international name is written in its xn-- form.
 */
bool
gateway_url_valid(const char *url, const char **why, char *host, size_t host_size)
{
	char        found[MAX_HOST + 1];
	const char *fault = url_fault(url, found);

	if (fault != NULL)
	{
		*why = fault;
		return false;
	}
	if (host_size > 0)
	{
		size_t length = strlen(found);

		if (length >= host_size)
			length = host_size - 1;
		memcpy(host, found, length);
		host[length] = '\0';
	}
	return true;
}

/*
 * The port of a valid URL, or that of its scheme if it names none, and whether
 * that is https.
 */
int
gateway_url_port(const char *url, bool *is_tls)
{
	const char *authority = strstr(url, "://") + 3;
	size_t      length = strcspn(authority, "/");
	const char *colon = authority[0] == '[' ? memchr(authority, ']', length) : authority;

	*is_tls = strncasecmp(url, "https:", 6) == 0;
	colon = memchr(colon, ':', length - (size_t) (colon - authority));
	if (colon == NULL)
		return *is_tls ? 443 : 80;
	return (int) strtol(colon + 1, NULL, 10);
}
