/*
 * request.h
 *		How a request is written down: URLs, headers, query strings and forms.
 */
#ifndef QM_GATEWAY_REQUEST_H
#define QM_GATEWAY_REQUEST_H

#include <stdbool.h>
#include <stddef.h>

#include <curl/curl.h>

#include "gateway/buffer.h"
#include "gateway/classify.h"
#include "gateway/gateway.h"

/* What all requests to one gateway have in common; malloc'ed, freed by endpoint_free. */
typedef struct Endpoint
{
	GatewayDialect     dialect;
	Buffer             balance_url;
	Buffer             used_url; /* empty if the dialect has no such URL */
	Buffer             refresh_url;
	Buffer             delta_url;
	Buffer             user_agent;
	Buffer             secret; /* empty: none */
	struct curl_slist *headers;
} Endpoint;

extern bool        endpoint_init(Endpoint *endpoint, const GatewayConfig *config, char *error,
								 size_t error_size);
extern void        endpoint_free(Endpoint *endpoint);
extern const char *endpoint_secret(const Endpoint *endpoint);
extern const char *request_fault(const Endpoint *endpoint, const GatewayRequest *request);
extern const char *request_url(const Endpoint *endpoint, ExchangeKind kind);
extern bool        write_query_url(const Endpoint *endpoint, ExchangeKind kind, const char *user_id,
								   Buffer *url);
extern bool write_form(const Endpoint *endpoint, const GatewayRequest *request, Buffer *form);

#endif /* QM_GATEWAY_REQUEST_H */
