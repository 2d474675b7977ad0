/*
 * mock_control.c
 *		The operator interface of aigateway-mock.
 */
#include "mock_control.h"

#include <poll.h>
#include <stdio.h>

#include <curl/curl.h>

#include "check.h"

/* Collects a reply of the mock's operator interface, as far as it fits. */
typedef struct Answer
{
	char   text[1 << 20];
	size_t used;
} Answer;

static size_t
collect(char *piece, size_t size, size_t count, void *data)
{
	Answer *answer = data;
	size_t  length = size * count;

	if (length > sizeof(answer->text) - 1 - answer->used)
		length = sizeof(answer->text) - 1 - answer->used;
	memcpy(answer->text + answer->used, piece, length);
	answer->used += length;
	answer->text[answer->used] = '\0';
	return size * count;
}

const char *
mock_do(const char *base_url, const char *path, const char *form)
{
	static Answer answer;
	CURL         *easy = curl_easy_init();
	char          url[200];

	answer.used = 0;
	answer.text[0] = '\0';
	snprintf(url, sizeof(url), "%s/mock/%s", base_url, path);
	curl_easy_setopt(easy, CURLOPT_URL, url);
	curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(easy, CURLOPT_FAILONERROR, 1L);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, collect);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, &answer);
	if (form)
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, form);
	CHECK(curl_easy_perform(easy) == CURLE_OK, "%s %s", path, form ? form : "");
	curl_easy_cleanup(easy);
	return answer.text;
}

int
mock_applied(const char *base_url)
{
	const char *c = mock_do(base_url, "applied", NULL);
	int         count = 0;

	while ((c = strstr(c, "\"seq\":")) != NULL)
	{
		count++;
		c++;
	}
	return count;
}

int
mock_wait_applied(const char *base_url, int count)
{
	int turns;

	for (turns = 0; turns < 500 && mock_applied(base_url) < count; turns++)
		poll(NULL, 0, 10);
	return mock_applied(base_url);
}
