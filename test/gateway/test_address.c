/*
 * test_address.c
 *		Where no gateway may be, whatever name leads there.
 *
 * The getaddrinfo below stands before that of the system, for libcurl too: it
 * knows names that end in ".test" and are the address they begin with.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* RTLD_NEXT */
#endif

#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "fault_server.h"
#include "gateway/address.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Addresses, and whether a gateway may be there. */
static const struct
{
	const char *address;
	bool        allowed;
} addresses[] = {
	{"127.0.0.1", true},
	{"10.0.0.1", true},
	{"172.16.0.1", true},
	{"192.168.0.1", true},
	{"100.64.0.1", true},
	{"203.0.113.1", true},
	{"1.0.0.1", true},
	{"169.253.255.255", true},
	{"169.255.0.0", true},
	{"223.255.255.255", true},
	{"100.100.100.201", true},
	{"0.0.0.0", false},
	{"0.1.2.3", false},
	{"169.254.0.0", false},
	{"169.254.169.254", false},
	{"169.254.170.2", false},
	{"169.254.255.255", false},
	{"224.0.0.1", false},
	{"240.0.0.1", false},
	{"255.255.255.255", false},
	{"100.100.100.200", false},
	{"168.63.129.16", false},
	{"192.0.0.192", false},
	{"::1", true},
	{"fd00::1", true},
	{"2001:db8::1", true},
	{"fe00::1", true},
	{"fec0::1", true},
	{"fd00:ec1:ffff::1", true},
	{"fd20:ce::253", true},
	{"::", false},
	{"fe80::1", false},
	{"febf::1", false},
	{"ff02::1", false},
	{"fd00:ec2::254", false},
	{"fd20:ce::254", false},
	{"fd00:42::42", false},
	{"::ffff:127.0.0.1", true},
	{"::ffff:0.0.0.0", false},
	{"::ffff:169.254.169.254", false},
	{"::169.254.169.254", false},
	{"::ffff:0:169.254.169.254", false},
	{"64:ff9b::169.254.169.254", false},
	{"64:ff9b::10.0.0.1", true},
	{"2002:a9fe:a9fe::1", false},
	{"2002:a00:1::1", true},
};

/* Reads an address of either family; false if it is none. */
static bool
read_address(const char *text, struct sockaddr_storage *address)
{
	struct sockaddr_in  *four = (struct sockaddr_in *) address;
	struct sockaddr_in6 *six = (struct sockaddr_in6 *) address;

	memset(address, 0, sizeof(*address));
	if (inet_pton(AF_INET, text, &four->sin_addr) == 1)
		four->sin_family = AF_INET;
	else if (inet_pton(AF_INET6, text, &six->sin6_addr) == 1)
		six->sin6_family = AF_INET6;
	else
		return false;
	return true;
}

typedef int (*Lookup)(const char *, const char *, const struct addrinfo *, struct addrinfo **);

/*
 * As getaddrinfo(3), for names such as 169-254-169-254.test too, and
 * 169-254-169-254_127-0-0-1.test, which has two addresses.
 */
int
getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
			struct addrinfo **result)
{
	static Lookup next;
	char          address[64];
	char         *second;
	size_t        length = name ? strlen(name) : 0;
	size_t        i;
	int           code;

	if (!next)
		*(void **) &next = dlsym(RTLD_NEXT, "getaddrinfo");
	if (length <= 5 || length >= sizeof(address) || strcmp(name + length - 5, ".test") != 0)
		return next(name, service, hints, result);
	memcpy(address, name, length - 5);
	address[length - 5] = '\0';
	for (i = 0; address[i]; i++)
		if (address[i] == '-')
			address[i] = '.';
	second = strchr(address, '_');
	if (second)
		*second++ = '\0';
	code = next(address, service, hints, result);
	if (code == 0 && second)
	{
		struct addrinfo *last = *result;

		while (last->ai_next)
			last = last->ai_next;
		code = next(second, service, hints, &last->ai_next);
	}
	return code;
}

/* A host as it stands in a URL. */
static void
as_host(const char *address, char *host, size_t size)
{
	snprintf(host, size, strchr(address, ':') ? "[%s]" : "%s", address);
}

/* Each address by itself, and as the host of a URL. */
static void
test_faults_of_addresses(void)
{
	size_t i;

	for (i = 0; i < COUNT(addresses); i++)
	{
		struct sockaddr_storage address;
		const char             *text = addresses[i].address;
		char                    host[64];
		char                    written[ADDRESS_SIZE];

		CHECK(read_address(text, &address), "%s", text);
		CHECK((address_fault((struct sockaddr *) &address) == NULL) == addresses[i].allowed, "%s",
			  text);
		address_write((struct sockaddr *) &address, written);
		CHECK(strcmp(written, text) == 0 || strchr(text, ':'), "%s is written %s", text, written);
		as_host(text, host, sizeof(host));
		CHECK((gateway_host_fault(host) == NULL) == addresses[i].allowed, "%s", host);
	}
	CHECK(!gateway_host_fault("metadata.google.internal"), "a name");
	CHECK(!gateway_host_fault("169-254-169-254.test"), "a name");
}

static bool
allow_any(const char *address)
{
	(void) address;
	return true;
}

static bool
allow_link_local(const char *address)
{
	return strcmp(address, "169.254.9.9") == 0;
}

/* Asks for a balance at a host, and gives what became of it. */
static GatewayReply
ask_at(const char *host, int port, bool (*address_allowed)(const char *))
{
	GatewayConfig   config = test_config(GATEWAY_HIGRESS, NULL);
	char            url[128];
	GatewaySession *session;
	GatewayReply    reply;

	snprintf(url, sizeof(url), "http://%s:%d", host, port);
	config.base_url = url;
	config.connect_timeout_ms = 300;
	config.request_timeout_ms = 600;
	config.address_allowed = address_allowed;
	session = open_session(&config);
	reply = ask(session, GATEWAY_QUERY, "u1", NULL);
	gateway_close(session);
	return reply;
}

/* None is connected to, by address or by name, unless it is allowed. */
static void
test_connections(void)
{
	static const char *const hosts[] = {
		"169.254.169.254",
		"169-254-169-254.test",
		"0.0.0.0",
		"0-0-0-0.test",
		"[::]",
		"[::ffff:0.0.0.0]",
		"[fe80::1]",
		"168-63-129-16.test",
	};
	FaultServer *server = fault_server_start();
	int          port = atoi(strrchr(fault_server_url(server), ':') + 1);
	GatewayReply reply;
	size_t       i;

	fault_server_script(
		server, &(FaultStep){.bytes = "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{\"quota\":7}"},
		1);
	for (i = 0; i < COUNT(hosts); i++)
	{
		reply = ask_at(hosts[i], port, NULL);
		EXPECT(reply, GATEWAY_NOT_SENT, hosts[i]);
		CHECK(strstr(reply.message, "not allowed for a gateway") != NULL, "%s: %s", hosts[i],
			  reply.message);
	}
	CHECK(fault_server_connections(server) == 0, "%d connections",
		  fault_server_connections(server));

	/* The unspecified address leads to this machine. */
	EXPECT(ask_at("127-0-0-1.test", port, NULL), GATEWAY_COMPLETED, "by a name");
	EXPECT(ask_at("0.0.0.0", port, allow_any), GATEWAY_COMPLETED, "allowed");
	EXPECT(ask_at("0-0-0-0.test", port, allow_any), GATEWAY_COMPLETED, "allowed, by a name");
	EXPECT(ask_at("169-254-169-254_127-0-0-1.test", port, NULL), GATEWAY_COMPLETED,
		   "the other address of a name");
	reply = ask_at("169-254-169-254_127-0-0-1.test", 1, NULL);
	CHECK(strstr(reply.message, "not allowed for a gateway") == NULL, "%s", reply.message);
	reply = ask_at("127-0-0-1_169-254-169-254.test", 1, NULL);
	CHECK(strstr(reply.message, "not allowed for a gateway") == NULL, "%s", reply.message);
	reply = ask_at("0.0.0.0", port, allow_link_local);
	EXPECT(reply, GATEWAY_NOT_SENT, "another is allowed");
	reply = ask_at("169-254-9-9.test", port, allow_link_local);
	CHECK(strstr(reply.message, "not allowed for a gateway") == NULL, "%s", reply.message);
	fault_server_stop(server);
}

void
test_address(void)
{
	test_faults_of_addresses();
	test_connections();
}
