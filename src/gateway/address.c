/*
 * address.c
 *		Addresses at which no gateway may be.
 *
 * A role that may write a gateway's URL must not reach services that trust this
 * machine because it is on their link, above all the metadata service of a cloud,
 * which answers a plain GET with the machine's credentials.  So the address that
 * is connected to is checked, not the name.
 */
#include "gateway/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include "gateway/gateway.h"

#define LINK_LOCAL "a link-local address"
#define UNSPECIFIED "an unspecified address"
#define MULTICAST "a multicast or reserved address"
#define METADATA "the address of a cloud's metadata service"

/* Prefixes of addresses, and what they are for. */
typedef struct AddressRange
{
	unsigned char prefix[16];
	int           bits;
	const char   *fault;
} AddressRange;

static const AddressRange ranges4[] = {
	{{0}, 8, UNSPECIFIED},
	{{169, 254}, 16, LINK_LOCAL},
	{{224}, 3, MULTICAST},
	{{100, 100, 100, 200}, 32, METADATA}, /* Alibaba Cloud */
	{{168, 63, 129, 16}, 32, METADATA},   /* Azure */
	{{192, 0, 0, 192}, 32, METADATA},     /* Oracle Cloud */
};

static const AddressRange ranges6[] = {
	{{[15] = 1}, 128, NULL}, /* this machine: not an IPv4-compatible address, as below */
	{{0}, 128, UNSPECIFIED},
	{{0xfe, 0x80}, 10, LINK_LOCAL},
	{{0xff}, 8, MULTICAST},
	{{0xfd, 0x00, 0x0e, 0xc2}, 32, METADATA},                            /* Amazon */
	{{0xfd, 0x20, 0x00, 0xce, [14] = 0x02, [15] = 0x54}, 128, METADATA}, /* Google */
	{{0xfd, 0x00, 0x00, 0x42, [15] = 0x42}, 128, METADATA},              /* Scaleway */
};

/* Where IPv6 addresses hold an IPv4 address: right after these bits. */
static const AddressRange carriers[] = {
	{{[10] = 0xff, [11] = 0xff}, 96, NULL}, /* mapped */
	{{0}, 96, NULL},                        /* compatible */
	{{[8] = 0xff, [9] = 0xff}, 96, NULL},   /* translated */
	{{0x00, 0x64, 0xff, 0x9b}, 96, NULL},   /* NAT64 */
	{{0x20, 0x02}, 16, NULL},               /* 6to4 */
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* The first range that an address is in; NULL: none. */
static const AddressRange *
find_range(const AddressRange *ranges, size_t count, const unsigned char *address)
{
	size_t i;

	for (i = 0; i < count; i++)
	{
		const AddressRange *range = &ranges[i];
		size_t              whole = (size_t) range->bits / 8;
		unsigned            mask = 0xff00u >> (range->bits % 8) & 0xff;

		if (memcmp(address, range->prefix, whole) == 0 &&
			(mask == 0 || ((address[whole] ^ range->prefix[whole]) & mask) == 0))
			return range;
	}
	return NULL;
}

/* As address_fault, for four bytes. */
static const char *
fault4(const unsigned char *address)
{
	const AddressRange *range = find_range(ranges4, COUNT(ranges4), address);

	return range ? range->fault : NULL;
}

/* As address_fault, for sixteen bytes. */
static const char *
fault6(const unsigned char *address)
{
	const AddressRange *range = find_range(ranges6, COUNT(ranges6), address);

	if (range)
		return range->fault;
	range = find_range(carriers, COUNT(carriers), address);
	return range ? fault4(address + range->bits / 8) : NULL;
}

/* The bytes of an address, four or sixteen; NULL if it is neither IPv4 nor IPv6. */
static const unsigned char *
address_bytes(const struct sockaddr *address)
{
	if (address->sa_family == AF_INET)
		return (const unsigned char *) &((const struct sockaddr_in *) address)->sin_addr;
	if (address->sa_family == AF_INET6)
		return (const unsigned char *) &((const struct sockaddr_in6 *) address)->sin6_addr;
	return NULL;
}

/*
 * What kind of address it is (a constant text) if no gateway may be there: the
 * link-local network, which hands out the machine's credentials, and addresses
 * that no server can have.  NULL: a gateway may be there.  An IPv4 address
 * within an IPv6 one counts as itself.
 */
const char *
address_fault(const struct sockaddr *address)
{
	const unsigned char *bytes = address_bytes(address);

	if (!bytes)
		return "an address of an unknown family";
	return address->sa_family == AF_INET ? fault4(bytes) : fault6(bytes);
}

/*
 * Writes an address in its usual form, without port; "?" if it is neither IPv4
 * nor IPv6.
 */
void
address_write(const struct sockaddr *address, char text[ADDRESS_SIZE])
{
	const unsigned char *bytes = address_bytes(address);

	if (!bytes || !inet_ntop(address->sa_family, bytes, text, ADDRESS_SIZE))
		memcpy(text, "?", 2);
}

/*
 * What kind of address the host of a valid URL is (a constant text), if it is
 * one that is connected to only when config.address_allowed permits it.  NULL:
 * another address, or a name.
 */
const char *
gateway_host_fault(const char *host)
{
	unsigned char bytes[sizeof(struct in6_addr)];
	char          inner[ADDRESS_SIZE];
	size_t        length = strlen(host);

	if (inet_pton(AF_INET, host, bytes) == 1)
		return fault4(bytes);
	if (length > 2 && host[0] == '[' && length - 2 < sizeof(inner))
	{
		memcpy(inner, host + 1, length - 2);
		inner[length - 2] = '\0';
		if (inet_pton(AF_INET6, inner, bytes) == 1)
			return fault6(bytes);
	}
	return NULL;
}
