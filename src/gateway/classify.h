/*
 * classify.h
 *		What an exchange with a gateway proves.
 *
 * Pure: neither libcurl nor PostgreSQL nor a clock.  The rules are the table
 * in docs/gateway.md; a reply that no rule covers is in doubt.
 */
#ifndef QM_GATEWAY_CLASSIFY_H
#define QM_GATEWAY_CLASSIFY_H

#include "gateway/gateway.h"

/* Which question an exchange asked. */
typedef enum ExchangeKind
{
	EXCHANGE_BALANCE, /* GET: the balance, or the total where the gateway has both */
	EXCHANGE_USED,    /* GET: what was used of the total */
	EXCHANGE_REFRESH,
	EXCHANGE_DELTA,
} ExchangeKind;

extern bool exchange_is_query(ExchangeKind kind);

/* One HTTP exchange, as far as it came. */
typedef struct Exchange
{
	GatewayDialect dialect;
	ExchangeKind   kind;
	const char    *user_id;
	const char    *secret;        /* must not show in a message; NULL: none */
	const char    *fault;         /* why the exchange did not end well; NULL: it did */
	bool           nothing_sent;  /* see GATEWAY_NOT_SENT */
	bool           partly_sent;   /* the reply came before all was sent */
	bool           headers_whole; /* status line and headers were read to their end */
	long           http_status;
	double         retry_after;
	const char    *content_type; /* the media type alone; NULL or "": none */
	const char    *body;         /* not NULL */
	size_t         body_length;
} Exchange;

extern void classify(const Exchange *exchange, GatewayReply *reply);

#endif /* QM_GATEWAY_CLASSIFY_H */
