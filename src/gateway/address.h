/*
 * address.h
 *		Addresses at which no gateway is looked for.
 */
#ifndef QM_GATEWAY_ADDRESS_H
#define QM_GATEWAY_ADDRESS_H

#include <sys/socket.h>

/* Bytes of an address as text, its NUL included. */
#define ADDRESS_SIZE 64

/*
 * What kind of address it is (a constant text) if no gateway is looked for
 * there: this machine's own link and what hands out its credentials, and what
 * no server can have.  NULL: a gateway may be there.  An IPv4 address within
 * an IPv6 one counts as itself.
 */
extern const char *address_fault(const struct sockaddr *address);

/* Writes an address as people write it, without port; "?" if it is neither IPv4 nor IPv6. */
extern void address_write(const struct sockaddr *address, char text[ADDRESS_SIZE]);

#endif /* QM_GATEWAY_ADDRESS_H */
