/*
 * address.h
 *		Addresses at which no gateway may be.
 */
#ifndef QM_GATEWAY_ADDRESS_H
#define QM_GATEWAY_ADDRESS_H

#include <sys/socket.h>

/* Bytes of an address as text, its NUL included. */
#define ADDRESS_SIZE 64

extern const char *address_fault(const struct sockaddr *address);
extern void        address_write(const struct sockaddr *address, char text[ADDRESS_SIZE]);

#endif /* QM_GATEWAY_ADDRESS_H */
