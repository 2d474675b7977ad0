/*
 * test_values.c
 *		Amounts, URLs, texts and forms: what needs no network.
 */
#include <stdio.h>
#include <stdlib.h>

#include <curl/curl.h>

#include "check.h"
#include "gateway/amount.h"
#include "gateway/buffer.h"
#include "gateway/text.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void
test_amounts(void)
{
	static const struct
	{
		const char *amount;
		const char *higress; /* as it is sent; NULL: does not fit */
		const char *zgsm;
	} cases[] = {
		{"0", "0", "0"},
		{"-0", "0", "0"},
		{"20", "20", "20"},
		{"-7", "-7", "-7"},
		{"10.00", "10", "10"},
		{"0010", "10", "10"},
		{"0.5", NULL, "0.5"},
		{"-0.5", NULL, "-0.5"},
		{"1.123456", NULL, "1.123456"},
		{"1.1234560", NULL, "1.123456"},
		{"1.1234567", NULL, NULL},
		{"9223372036854775807", "9223372036854775807", NULL},
		{"9223372036854775808", NULL, NULL},
		{"-9223372036854775808", "-9223372036854775808", NULL},
		{"-9223372036854775809", NULL, NULL},
		{"00009223372036854775807.000", "9223372036854775807", NULL},
		{"999999999999999999", "999999999999999999", NULL},
		{"9007199254740992", "9007199254740992", "9007199254740992"},
		{"-9007199254740992", "-9007199254740992", "-9007199254740992"},
		{"9007199254740993", "9007199254740993", NULL},
		{"9007199254.740992", NULL, "9007199254.740992"},
		{"-9007199254.740992", NULL, "-9007199254.740992"},
		{"9007199254.740993", NULL, NULL},
		{"9007199255.5", NULL, NULL},
		{"1000000000000000000", "1000000000000000000", NULL},
		{"", NULL, NULL},
		{"-", NULL, NULL},
		{"+1", NULL, NULL},
		{".5", NULL, NULL},
		{"5.", NULL, NULL},
		{"1e3", NULL, NULL},
		{"1 ", NULL, NULL},
		{" 1", NULL, NULL},
		{"0x10", NULL, NULL},
		{"NaN", NULL, NULL},
		{"Infinity", NULL, NULL},
		{"1.2.3", NULL, NULL},
		{"--1", NULL, NULL},
	};
	size_t i;
	int    dialect;

	for (i = 0; i < COUNT(cases); i++)
		for (dialect = GATEWAY_HIGRESS; dialect <= GATEWAY_ZGSM; dialect++)
		{
			const char *expected = dialect == GATEWAY_ZGSM ? cases[i].zgsm : cases[i].higress;
			char        written[AMOUNT_SIZE] = "";
			bool        fits = amount_write(dialect, cases[i].amount, written);

			CHECK(fits == (expected != NULL), "\"%s\" in dialect %d", cases[i].amount, dialect);
			CHECK(fits == gateway_amount_fits(dialect, cases[i].amount), "%s", cases[i].amount);
			CHECK(!fits || strcmp(written, expected) == 0, "\"%s\" became \"%s\"", cases[i].amount,
				  written);
		}
}

static void
test_proofs(void)
{
	static const struct
	{
		GatewayDialect  dialect;
		const char     *before;
		const char     *after;
		const char     *amount;
		double          max_usage;
		GatewayEvidence at_once;
		GatewayEvidence settle_delay_over;
	} cases[] = {
#define APPLIED GATEWAY_EVIDENCE_APPLIED, GATEWAY_EVIDENCE_APPLIED
#define NOT_APPLIED GATEWAY_EVIDENCE_LATER, GATEWAY_EVIDENCE_NOT_APPLIED
#define NOTHING_YET GATEWAY_EVIDENCE_LATER, GATEWAY_EVIDENCE_NONE
#define NOTHING GATEWAY_EVIDENCE_NONE, GATEWAY_EVIDENCE_NONE
		{GATEWAY_ZGSM, "5", "25", "20", -1, APPLIED},
		{GATEWAY_ZGSM, "5", "5", "20", -1, NOT_APPLIED},
		{GATEWAY_ZGSM, "5", "24.999999", "20", -1, APPLIED},
		{GATEWAY_ZGSM, "5", "25.000001", "20", -1, APPLIED},
		{GATEWAY_ZGSM, "5", "25.000002", "20", -1, NOTHING},
		{GATEWAY_ZGSM, "5", "4.999999", "20", -1, NOT_APPLIED},
		{GATEWAY_ZGSM, "5", "4.999998", "20", -1, NOTHING},
		{GATEWAY_ZGSM, "5", "15", "20", -1, NOTHING},
		{GATEWAY_ZGSM, "5", "45", "20", -1, NOTHING},
		{GATEWAY_ZGSM, "25", "5", "-20", -1, APPLIED},
		{GATEWAY_ZGSM, "5", "-15", "-20", -1, APPLIED},
		{GATEWAY_ZGSM, "-0.5", "-0.25", "0.25", -1, APPLIED},
		{GATEWAY_ZGSM, "5", "5", "0.000001", -1, NOTHING},
		{GATEWAY_ZGSM, "5", "5.000002", "0.000002", -1, APPLIED},
		{GATEWAY_ZGSM, "5", "5.000001", "0.000002", -1, NOTHING},
		/* float64 cannot tell the one from the other */
		{GATEWAY_ZGSM, "999999999999999999.999999", "999999999999999999.999999", "1", -1, NOTHING},
		{GATEWAY_ZGSM, "1000000000000000", "1000000000000000", "0.02", -1, NOTHING},
		{GATEWAY_ZGSM, "1000000000000000", "1000000000000000", "0.2", -1, NOTHING},
		{GATEWAY_ZGSM, "1000000000000000", "1000000000000000.125", "0.2", -1, NOTHING},
		{GATEWAY_ZGSM, "1000000000000000", "1000000000000000", "0.5", -1, NOT_APPLIED},
		{GATEWAY_ZGSM, "1000000000000000", "1000000000000000.5", "0.5", -1, APPLIED},
		{GATEWAY_ZGSM, "0.02", "1000000000000000", "1000000000000000", -1, APPLIED},
		{GATEWAY_ZGSM, "-1000000000000000", "-1000000000000000", "0.02", -1, NOTHING},
		{GATEWAY_ZGSM, "10000000000", "10000000000.000001", "0.00001", -1, NOT_APPLIED},
		{GATEWAY_ZGSM, "x", "25", "20", -1, NOTHING},
		{GATEWAY_ZGSM, "", "25", "20", -1, NOTHING},
		{GATEWAY_HIGRESS, "5", "25", "20", -1, APPLIED},
		{GATEWAY_HIGRESS, "5", "6", "20", -1, APPLIED},
		{GATEWAY_HIGRESS, "5", "5", "20", -1, NOTHING_YET},
		{GATEWAY_HIGRESS, "5", "-900", "20", -1, NOTHING_YET},
		{GATEWAY_HIGRESS, "5", "5", "20", 0, NOT_APPLIED},
		{GATEWAY_HIGRESS, "5", "5", "20", 19, NOT_APPLIED},
		{GATEWAY_HIGRESS, "5", "5", "20", 19.5, NOTHING_YET},
		{GATEWAY_HIGRESS, "5", "5", "20", 20, NOTHING_YET},
		{GATEWAY_HIGRESS, "5", "6", "20", 19, APPLIED},
		{GATEWAY_HIGRESS, "5", "5", "20", 1e300, NOTHING_YET},
		{GATEWAY_HIGRESS, "25", "5", "-20", -1, NOTHING_YET},
		{GATEWAY_HIGRESS, "25", "6", "-20", -1, NOT_APPLIED},
		{GATEWAY_HIGRESS, "25", "25", "-20", -1, NOT_APPLIED},
		{GATEWAY_HIGRESS, "25", "5", "-20", 19, APPLIED},
		{GATEWAY_HIGRESS, "25", "5", "-20", 20, NOTHING_YET},
		{GATEWAY_HIGRESS, "25", "4", "-20", 20, APPLIED},
		/* wrapped around at 32 bits, or written by somebody else */
		{GATEWAY_HIGRESS, "2147483000", "-2147483296", "1000", 100, NOTHING_YET},
		{GATEWAY_HIGRESS, "-2147483000", "2147483296", "-1000", 100, NOTHING_YET},
		{GATEWAY_HIGRESS, "-2147483000", "2147483296", "-1000", -1, NOTHING_YET},
		{GATEWAY_HIGRESS, "5", "-16", "20", 20, NOTHING_YET},
		{GATEWAY_HIGRESS, "5", "-15", "20", 20, NOT_APPLIED},
		{GATEWAY_HIGRESS, "5", "4", "20", 10, NOT_APPLIED},
		{GATEWAY_HIGRESS, "5", "26", "20", -1, NOTHING_YET},
		{GATEWAY_HIGRESS, "25", "26", "-20", -1, NOTHING_YET},
		{GATEWAY_HIGRESS, "25", "-16", "-20", 20, NOTHING_YET},
		{GATEWAY_HIGRESS, "9223372036854775807", "9223372036854775807", "1", 0, NOTHING},
		{GATEWAY_HIGRESS, "-9223372036854775808", "-9223372036854775807", "5", 0, APPLIED},
		{GATEWAY_HIGRESS, "9223372036854775806", "9223372036854775807", "1", 0, APPLIED},
	};
	size_t i;

	for (i = 0; i < COUNT(cases); i++)
	{
		GatewaySamples samples = {cases[i].dialect, cases[i].before,    cases[i].after,
								  cases[i].amount,  cases[i].max_usage, false};

		CHECK(gateway_weigh(&samples) == cases[i].at_once, "case %zu: from %s to %s by %s", i,
			  cases[i].before, cases[i].after, cases[i].amount);
		samples.settle_delay_over = true;
		CHECK(gateway_weigh(&samples) == cases[i].settle_delay_over,
			  "case %zu: from %s to %s by %s, after the settle delay", i, cases[i].before,
			  cases[i].after, cases[i].amount);
	}
}

static void
test_subtraction(void)
{
	static const struct
	{
		const char *total;
		const char *used;
		const char *left;
	} cases[] = {
		{"100", "30", "70"},
		{"100", "100", "0"},
		{"0", "0", "0"},
		{"0.3", "0.1", "0.2"},
		{"1", "0.000001", "0.999999"},
		{"0", "0.25", "-0.25"},
		{"0.5", "1.75", "-1.25"},
		{"-0.5", "0.5", "-1"},
		{"-0.5", "-0.5", "0"},
		{"10", "-2.5", "12.5"},
		{"0", "0.000001", "-0.000001"},
		{"999999999999999999.999999", "-999999999999999999.999999", "1999999999999999999.999998"},
		{"-999999999999999999.999999", "999999999999999999.999999", "-1999999999999999999.999998"},
		{"999999999999999999.999999", "0.000001", "999999999999999999.999998"},
	};
	size_t i;

	for (i = 0; i < COUNT(cases); i++)
	{
		char left[AMOUNT_SIZE];

		amount_subtract(cases[i].total, cases[i].used, left);
		CHECK(strcmp(left, cases[i].left) == 0, "%s - %s gave %s", cases[i].total, cases[i].used,
			  left);
	}
}

static void
test_rounding(void)
{
	static const struct
	{
		const char *number;
		const char *read; /* NULL: unreadable */
	} cases[] = {
		{"0.30000000000000004", "0.3"},
		{"0.1234564999", "0.123456"},
		{"0.1234565", "0.123457"},
		{"-0.1234565", "-0.123457"},
		{"0.9999999", "1"},
		{"-0.9999999", "-1"},
		{"-0.0000001", "0"},
		{"999999999999999999.9999999", "1000000000000000000"},
		{"1234567890123456789.1234567", NULL},
		{"1e-7", "0"},
		{"1.1e-16", "0"},
		{"-1e-17", "0"},
		{"5e-7", "0.000001"},
		{"-1.5e-6", "-0.000002"},
		{"1e0", "1"},
		{"1.25e1", "12.5"},
		{"12345e-4", "1.2345"},
		{"-1.5E+3", "-1500"},
		{"0e999999999999", "0"},
		{"1e-999999999999", "0"},
		{"9.99999999999999999e17", "999999999999999999"},
		{"1e+18", NULL},
		{"1e+21", NULL},
		{"1e400", NULL},
		{"1e", NULL},
		{"1e+", NULL},
		{"1.e3", NULL},
		{".5e3", NULL},
		{"e3", NULL},
		{"1e3x", NULL},
		{"-e", NULL},
	};
	size_t i;

	for (i = 0; i < COUNT(cases); i++)
	{
		char read[AMOUNT_SIZE] = "";
		bool ok = amount_read(GATEWAY_ZGSM, cases[i].number, read);

		CHECK(ok == (cases[i].read != NULL), "%s", cases[i].number);
		CHECK(!ok || strcmp(read, cases[i].read) == 0, "%s became %s", cases[i].number, read);
	}
}

/* The host libcurl would connect to; "" if it refuses the URL. */
static void
host_by_libcurl(const char *url, char *host, size_t size)
{
	CURLU *parsed = curl_url();
	char  *part = NULL;

	host[0] = '\0';
	if (curl_url_set(parsed, CURLUPART_URL, url, 0) == CURLUE_OK &&
		curl_url_get(parsed, CURLUPART_USER, &part, 0) == CURLUE_NO_USER &&
		curl_url_get(parsed, CURLUPART_HOST, &part, 0) == CURLUE_OK)
		snprintf(host, size, "%s", part);
	curl_free(part);
	curl_url_cleanup(parsed);
}

static void
test_urls(void)
{
	static const struct
	{
		const char *url;
		const char *host; /* NULL: refused */
	} cases[] = {
		{"http://a", "a"},
		{"http://Gate.Example.COM:8080/base/", "gate.example.com"},
		{"HTTPS://gate-1.example.com", "gate-1.example.com"},
		{"https://xn--bcher-kva.example/", "xn--bcher-kva.example"},
		{"http://my_gateway:8080", "my_gateway"},
		{"http://127.0.0.1:65535/a@b:c", "127.0.0.1"},
		{"http://[::1]:80/", "[::1]"},
		{"http://[2001:DB8::1]", "[2001:db8::1]"},
		{"", NULL},
		{"gate.example.com", NULL},
		{"ftp://a", NULL},
		{"file:///etc/passwd", NULL},
		{"http:/a", NULL},
		{"http://", NULL},
		{"http:///a", NULL},
		{"http://:80", NULL},
		{"http://user@a", NULL},
		{"http://user:secret@a/", NULL},
		{"http://a@b@c", NULL},
		{"http://a:@b", NULL},
		{"http://a\\@b/", NULL},
		{"http://a?x=1", NULL},
		{"http://a/?", NULL},
		{"http://a#b", NULL},
		{"http://a b", NULL},
		{"http://a\r\nHost: b", NULL},
		{"http://b\xc3\xbc"
		 "cher.example",
		 NULL},
		{"http://a:", NULL},
		{"http://a:0", NULL},
		{"http://a:65536", NULL},
		{"http://a:99999999999", NULL},
		{"http://a:8a", NULL},
		{"http://a:80:80", NULL},
		{"http://a..b", NULL},
		{"http://.a", NULL},
		{"http://a.", NULL},
		{"http://a%41", NULL},
		{"http://0x7f.1", NULL},
		{"http://2130706433", NULL},
		{"http://127.1", NULL},
		{"http://010.0.0.1", NULL},
		{"http://1.2.3.4.5", NULL},
		{"http://[::1", NULL},
		{"http://[::1/a]", NULL},
		{"http://[]", NULL},
		{"http://[::1]x", NULL},
		{"http://[::g]", NULL},
		{"http://[fe80::1%25eth0]", NULL},
		{"http://[1.2.3.4]", NULL},
		{"http://a[b]", NULL},
	};
	char   long_url[400] = "http://";
	size_t i;

	for (i = 0; i < COUNT(cases); i++)
	{
		const char *why = NULL;
		char        host[256] = "";
		bool        valid = gateway_url_valid(cases[i].url, &why, host, sizeof(host));

		CHECK(valid == (cases[i].host != NULL), "%s: %s", cases[i].url, why ? why : "taken");
		CHECK(valid || (why && why[0]), "%s: no reason", cases[i].url);
		CHECK(!valid || strcmp(host, cases[i].host) == 0, "%s: host %s", cases[i].url, host);
		if (valid)
		{
			char other[256];

			host_by_libcurl(cases[i].url, other, sizeof(other));
			CHECK(strcasecmp(host, other) == 0, "%s: %s, but %s to libcurl", cases[i].url, host,
				  other);
		}
	}

	memset(long_url + 7, 'a', 254);
	CHECK(!gateway_url_valid(long_url, &(const char *){NULL}, NULL, 0), "254 characters");
	long_url[7 + 253] = '\0';
	CHECK(gateway_url_valid(long_url, &(const char *){NULL}, NULL, 0), "253 characters");
	{
		char small[4] = "xxx";

		CHECK(gateway_url_valid("http://abcdef", &(const char *){NULL}, small, sizeof(small)) &&
				  strcmp(small, "abc") == 0,
			  "a small buffer holds %s", small);
	}
}

/* Whatever passes of random URLs names the same host to libcurl, and no user. */
static void
test_random_urls(void)
{
	static const char *const pieces[] = {"http://", "https://", "/",  "//", ":", "@",    "a",
										 "b.c",     "[",        "]",  "::", "1", "80",   "%41",
										 "?",       "#",        "\\", ".",  "-", "0x7f", "%"};
	unsigned                 seed = 1;
	int                      valid_count = 0;
	int                      i;

	for (i = 0; i < 200000; i++)
	{
		char        url[128] = "http://";
		char        host[256];
		char        other[256];
		const char *why;
		int         count;

		for (count = rand_r(&seed) % 8; count > 0; count--)
			strcat(url, pieces[(size_t) rand_r(&seed) % COUNT(pieces)]);
		if (!gateway_url_valid(url, &why, host, sizeof(host)))
			continue;
		valid_count++;
		host_by_libcurl(url, other, sizeof(other));
		if (strcasecmp(host, other) != 0)
			CHECK(false, "%s: %s, but %s to libcurl", url, host, other);
	}
	CHECK(valid_count > 1000, "%d valid URLs", valid_count);
}

/* Writes a text again as somebody does who passes it on. */
typedef void (*Escape)(const char *text, bool all, char *out);

static void
escape_json(const char *text, bool all, char *out)
{
	for (; *text; text++)
		if (all || *text == '&')
			out += sprintf(out, *text & 1 ? "\\u%04x" : "\\u%04X", (unsigned) *text);
		else if (strchr("\"\\/", *text))
			out += sprintf(out, "\\%c", *text);
		else
			*out++ = *text;
	*out = '\0';
}

static void
escape_percent(const char *text, bool all, char *out)
{
	for (; *text; text++)
		if (*text == ' ' && !all)
			*out++ = '+';
		else if (all || strchr("%\\/+\"'&=", *text))
			out += sprintf(out, *text & 1 ? "%%%02x" : "%%%02X", (unsigned) *text);
		else
			*out++ = *text;
	*out = '\0';
}

static void
escape_markup(const char *text, bool all, char *out)
{
	for (; *text; text++)
		if (all)
			out += sprintf(out, *text & 1 ? "&#%u;" : "&#x%X;", (unsigned) *text);
		else if (*text == '&')
			out += sprintf(out, "&amp;");
		else if (*text == '"')
			out += sprintf(out, "&quot;");
		else
			*out++ = *text;
	*out = '\0';
}

static void
escape_base64(const char *text, bool all, char *out)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t            length = strlen(text);
	size_t            i;

	for (i = 0; i < length; i += 3)
	{
		unsigned bits = (unsigned) text[i] << 16;
		int      j;

		if (i + 1 < length)
			bits |= (unsigned) text[i + 1] << 8;
		if (i + 2 < length)
			bits |= (unsigned) text[i + 2];
		for (j = 0; j < 4; j++)
			*out++ = i + (size_t) j > length ? '=' : digits[bits >> (18 - 6 * j) & 63];
	}
	*out = '\0';
}

/*
 * A secret is found however it is written, and a text that is none is left as
 * it is.  What stands beside it in base64 shares a digit with it.
 */
static void
test_spellings(void)
{
	static const char *const secrets[] = {"sk/very+secret=0123", "a&b\"c\\d'e%f",
										  "%2F\\/&amp;\\u0041", "\\\\\\\\\\\\\\\\",
										  "two words/key"};
	static const Escape      escapes[] = {escape_json, escape_percent, escape_markup};
	size_t                   i;
	size_t                   way;

	for (i = 0; i < COUNT(secrets); i++)
		for (way = 0; way < 4 * 4 * 4; way++)
		{
			size_t first = way % 4;
			size_t second = way / 4 % 4;
			char   inner[200];
			char   outer[2000];
			char   text[2100];
			char   line[2200];

			strcpy(inner, secrets[i]);
			if (first < 3)
				escapes[first](secrets[i], way & 16, inner);
			strcpy(outer, inner);
			if (second < 3)
				escapes[second](inner, way & 32, outer);
			sprintf(text, "key '%s': refused", outer);
			text_line(line, sizeof(line), text, strlen(text), secrets[i]);
			CHECK(strcmp(line, "key '***': refused") == 0, "%s became %s", text, line);
			text_line(line, sizeof(line), text, strlen(text), "sk/another+secret");
			CHECK(strcmp(line, text) == 0, "%s became %s", text, line);
		}

	for (i = 0; i < COUNT(secrets); i++)
		for (way = 0; way < 3; way++)
		{
			char   plain[200];
			char   text[300];
			char   line[300];
			size_t shown;

			sprintf(plain, "%.*s%s and more", (int) way, "user:", secrets[i]);
			escape_base64(plain, false, text);
			text_line(line, sizeof(line), text, strlen(text), secrets[i]);
			shown = strlen(line);
			CHECK(strstr(line, "***") && shown <= way + 3 + (strlen(" and more") + 2) * 4 / 3 + 2,
				  "%s became %s", text, line);
		}
}

static void
test_texts(void)
{
	static const struct
	{
		const char *text;
		const char *line;
	} cases[] = {
		{"", ""},
		{"plain", "plain"},
		{"  two \r\n\t lines \n", "two lines"},
		{"nul\x01\x7f.", "nul ."},
		{"gr\xc3\xbc\xc3\x9f"
		 "e \xf0\x9f\x98\x80",
		 "gr\xc3\xbc\xc3\x9f"
		 "e \xf0\x9f\x98\x80"},
		{"bad \xff\xc3 \xc3(", "bad ?? ?("},
		{"cut \xe2\x82", "cut ??"},
		{"overlong \xc0\xaf \xe0\x80\xaf", "overlong ?? ???"},
		{"surrogate \xed\xa0\x80", "surrogate ???"},
		{"beyond \xf4\x90\x80\x80", "beyond ????"},
		{"left\xe2\x80\xaeright", "left right"},
		{"line\xe2\x80\xa8"
		 "end\xc2\x85"
		 "end",
		 "line end end"},
		{"the key " CREDENTIAL " is wrong, " CREDENTIAL, "the key *** is wrong, ***"},
		{"Bearer " CREDENTIAL CREDENTIAL, "Bearer ******"},
		{"cut off sk-very-sec", "cut off ***"},
		{"cut off s", "cut off s"},
		{"cut in an escape sk-very\\u00", "cut in an escape ***"},
		{"cut in an escape sk-very%2", "cut in an escape ***"},
		{"another \\u0073k %73k &#115;k", "another \\u0073k %73k &#115;k"},
	};
	char   small[8];
	size_t size;
	size_t i;

	for (i = 0; i < COUNT(cases); i++)
	{
		char line[128];

		text_line(line, sizeof(line), cases[i].text, strlen(cases[i].text), CREDENTIAL);
		CHECK(strcmp(line, cases[i].line) == 0, "\"%s\" became \"%s\"", cases[i].text, line);
	}
	text_line(small, sizeof(small), "12345\xe2\x82\xac", 8, NULL);
	CHECK(strcmp(small, "12345") == 0, "cut inside a character: \"%s\"", small);
	text_line(small, sizeof(small), "a\0b", 3, NULL);
	CHECK(strcmp(small, "a b") == 0, "a NUL inside: \"%s\"", small);

	test_spellings();

	/* wherever a text is cut, nothing of a secret shows */
	for (size = 1; size < 64; size++)
	{
		char line[64];

		text_line(line, size, "xxxxxxxx " CREDENTIAL " yyyyyyyy", 8 + 2 + 8 + strlen(CREDENTIAL),
				  CREDENTIAL);
		CHECK(strlen(line) < size && strstr(line, "sk") == NULL, "size %zu: \"%s\"", size, line);
	}

	CHECK(text_contains("abcabd", 6, "abd") && !text_contains("abcabd", 5, "abd"), "contains");
	CHECK(text_contains("aab", 3, "ab") && !text_contains("", 0, "a"), "contains");
}

static void
test_encoding(void)
{
	Buffer buffer = {0};
	char   all[256];
	int    i;

	for (i = 1; i < 256; i++)
		all[i - 1] = (char) i;
	all[255] = '\0';

	CHECK(buffer_append_encoded(&buffer, "a b&c=d+\xc3\xbc~%"), "memory");
	CHECK(strcmp(buffer.data, "a%20b%26c%3Dd%2B%C3%BC~%25") == 0, "became %s", buffer.data);
	buffer_reset(&buffer, 4096);
	CHECK(buffer.used == 0 && buffer.size > 0, "memory is kept");
	CHECK(buffer_append_encoded(&buffer, all) && buffer.used == encoded_length(all), "length");
	CHECK(strcmp(buffer.data + buffer.used - 6, "%FE%FF") == 0, "ends in %s", buffer.data);
	buffer_reset(&buffer, 16);
	CHECK(buffer.used == 0 && buffer.size == 0, "memory is given back");
	buffer_free(&buffer);
}

void
test_values(void)
{
	test_amounts();
	test_proofs();
	test_subtraction();
	test_rounding();
	test_urls();
	test_random_urls();
	test_texts();
	test_encoding();
}
