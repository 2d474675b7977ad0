/*
 * transfer.h
 *		One request at a time on one easy handle of libcurl, and its reply.
 *
 * A transfer is made once per connection a session may have and used again
 * and again; what does not change between requests is set once.
 *
 * Versions of libcurl from 7.88 to 8.23 are provided for.  Where they differ:
 *
 * - before 8.0, and from 8.22 on but once a second, it does not check whether
 *   something arrived unasked on a kept connection: drop_disturbed (session.c);
 *   8.16 can drop idle connections on request;
 * - 7.88 takes "HTTP/1.1 200OK" for a 200, 8.13 and later "HTTP/1.1 2000 OK",
 *   and all of them "http/1.1 200 OK": is_status_line;
 * - 8.14 winds a form back at the start of the request after one that was
 *   refused it: refuse_rewind;
 * - the text and the code of a connection that was closed without a reply
 *   depend on what was tried last: why_lost;
 * - 7.85 has CURLOPT_PROTOCOLS_STR, 7.87 CURLOPT_QUICK_EXIT: set_common_options;
 * - 8.0 and later hold a descriptor or two more for each session.
 */
#ifndef QM_GATEWAY_TRANSFER_H
#define QM_GATEWAY_TRANSFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <curl/curl.h>

#include "gateway/buffer.h"
#include "gateway/classify.h"
#include "gateway/gateway.h"
#include "gateway/request.h"

/* What is sent, and how far libcurl has come with it. */
typedef struct TransferRequest
{
	ExchangeKind      kind;
	Buffer            user_id;
	Buffer            query_url;
	Buffer            form;
	size_t            form_given;    /* bytes of it that libcurl has taken */
	struct curl_slist key_header;    /* followed by the endpoint's headers */
	char              key_line[256]; /* its text */
	int64_t           deadline_ms;   /* on the clock of transfer_now_ms */
} TransferRequest;

/* The connection that libcurl uses for it. */
typedef struct TransferConnection
{
	curl_socket_t socket;   /* that libcurl waits for; CURL_SOCKET_BAD: none yet */
	bool          push_due; /* what libcurl has written may be held back by the socket */
	char          refused_address[128]; /* that no socket was made for, and why; "": none */
	bool          socket_made;          /* for another address: refused_address is not the reason */
} TransferConnection;

/* What has arrived. */
typedef struct TransferReply
{
	size_t bytes; /* headers and body */
	Buffer body;
	bool   headers_whole;
	size_t given_before; /* form_given at the end of the headers */
	bool   too_large;
	bool   out_of_memory;
	bool   not_http;
	double retry_after;
	char   content_type[64]; /* without its parameters; "": none */
	char   total[64];        /* the first half of an answer in two */
} TransferReply;

typedef struct Transfer
{
	struct Transfer     *next; /* in the list of the session that it is in */
	CURL                *easy;
	const Endpoint      *endpoint;
	const GatewayConfig *limits; /* the session's copy: no text of it is valid */
	void                *token;
	char                 fault[CURL_ERROR_SIZE]; /* filled by libcurl */
	TransferRequest      request;
	TransferConnection   connection;
	TransferReply        received;
	GatewayReply         reply; /* valid when the transfer has ended */
} Transfer;

extern int64_t transfer_now_ms(void);
extern bool    transfer_init(Transfer *transfer, const Endpoint *endpoint,
							 const GatewayConfig *limits);
extern void    transfer_free(Transfer *transfer);
extern bool    transfer_prepare(Transfer *transfer, const GatewayRequest *request);
extern bool    transfer_ended(Transfer *transfer, CURLcode result);
extern bool    transfer_is_written(const Transfer *transfer);
extern void    transfer_fail(Transfer *transfer, GatewayOutcome outcome, const char *why);

#endif /* QM_GATEWAY_TRANSFER_H */
