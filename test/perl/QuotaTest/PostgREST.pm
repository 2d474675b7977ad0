
=pod

=head1 NAME

QuotaTest::PostgREST - sends what PostgREST sends for a request, without it

=head1 SYNOPSIS

  my $api = QuotaTest::PostgREST->new($node, 'postgres');
  my $answer = $api->get('viewer', 'strategies', select => ['id', 'name'], where => [['type', '=', 'single']], order => 'id', limit => 3);
  my $answer = $api->post('operator', 'users', [{ id => 'a' }], upsert => 'id', returning => '*');
  my $answer = $api->rpc('operator', 'POST', 'cancel', { ids => [1, 2] });

An answer has status, as PostgREST would give it, rows (the decoded body), total and page, or code, message, details and hint of an error, and
headers. Statements have the form that PostgREST 14 gives them: prepared, with parameters whose types are left to the server, a
body of type json, in a transaction that is READ ONLY for GET, after what it sets. The role authenticator logs in.

=cut

package QuotaTest::PostgREST;

use strict;
use warnings FATAL => 'all';

use IPC::Run ();
use JSON::PP ();
use PostgreSQL::Test::Utils ();

my $json = JSON::PP->new->canonical->allow_nonref;

# PostgREST's own status of an SQLSTATE; the first that fits.
my @own_statuses = (
	[ qr/^08/, 503 ], [ qr/^09/, 500 ], [ qr/^0[LP]/, 403 ], [ qr/^2350[35]/, 409 ], [ qr/^25006/, 405 ], [ qr/^21/, 500 ], [ qr/^25/, 500 ],
	[ qr/^28/, 403 ], [ qr/^(?:2D|38|39|3B|40)/, 500 ], [ qr/^53400/, 500 ], [ qr/^53/, 503 ], [ qr/^5[4578]/, 500 ], [ qr/^(?:F0|HV|XX)/, 500 ],
	[ qr/^P0001/, 400 ], [ qr/^P0/, 500 ], [ qr/^42(?:883|P01)/, 404 ], [ qr/^42P17/, 500 ]);

sub new
{
	my ($class, $node, $database) = @_;
	my $self = bless { node => $node, database => $database, count => 0 }, $class;

	$node->safe_psql($database, 'CREATE ROLE authenticator LOGIN NOINHERIT')
	  if $node->safe_psql($database, q{SELECT count(*) FROM pg_roles WHERE rolname = 'authenticator'}) == 0;
	return $self;
}

# Makes a role of a level (none for anonymous) that authenticator can become.
sub role
{
	my ($self, $name, $level) = @_;

	$self->{node}->safe_psql($self->{database}, "CREATE ROLE $name; GRANT $name TO authenticator"
		. (defined $level ? "; SELECT quota_manager.grant_access('$name', '$level')" : ''));
	return;
}

# What PostgREST keeps in its schema cache: types of columns and of arguments.
sub _types
{
	my ($self, $query) = @_;

	return { map { split /\|/, $_, 2 } split /\n/, $self->{node}->safe_psql($self->{database}, $query) };
}

sub columns
{
	my ($self, $view) = @_;

	return $self->{columns}{$view} //= $self->_types(qq{SELECT a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a
		WHERE a.attrelid = 'quota_api.$view'::regclass AND a.attnum > 0});
}

# Argument names and types of a function; its volatility and what it returns are in {functions}{NAME}.
sub arguments
{
	my ($self, $function) = @_;

	return $self->{arguments}{$function} //= $self->_types(qq{SELECT p.proargnames[n], format_type(p.proargtypes[n - 1], NULL)
		FROM pg_proc p, generate_series(1, p.pronargs) n WHERE p.pronamespace = 'quota_api'::regnamespace AND p.proname = '$function' AND p.proargnames IS NOT NULL});
}

sub shape
{
	my ($self, $function) = @_;

	return $self->{shapes}{$function} //= $self->{node}->safe_psql($self->{database}, qq{SELECT CASE
			WHEN t.typtype = 'c' OR p.proargmodes && '{o,t}' THEN CASE WHEN p.proretset THEN 'rows' ELSE 'row' END ELSE 'scalar' END
		FROM pg_proc p JOIN pg_type t ON t.oid = p.prorettype
		WHERE p.pronamespace = 'quota_api'::regnamespace AND p.proname = '$function' AND p.proargnames IS NOT NULL
			OR p.pronamespace = 'quota_api'::regnamespace AND p.proname = '$function' AND p.pronargs = 0});
}

sub _literal
{
	my ($value) = @_;

	return 'NULL' if !defined $value;
	$value =~ s/'/''/g;
	return $value =~ /\\/ ? 'E\'' . ($value =~ s/\\/\\\\/gr) . "'" : "'$value'";
}

sub _name
{
	my ($name) = @_;

	$name =~ s/"/""/g;
	return qq{"$name"};
}

# Runs one request: set-up, the prepared statement, end. Returns the answer.
sub send_request
{
	my ($self, %request) = @_;
	my $writes = $request{method} !~ /^(?:GET|HEAD)$/ && !$request{only_reads};
	my $claims = { role => $request{role}, exp => 4_000_000_000, %{ $request{claims} // { sub => "$request{role}\@example.org" } } };
	my %setting = (
		search_path => '"quota_api", "public"',
		role => $request{role},
		'request.jwt.claims' => $request{raw_claims} // $json->encode($claims),
		'request.method' => $request{method},
		'request.path' => $request{path},
		'request.headers' => '{"authorization":"Bearer secret-token","host":"127.0.0.1:3000"}',
		'request.cookies' => '{}',
		%{ $request{settings} // {} });
	my @parameters = @{ $request{parameters} };
	my $types = join ', ', map { ref $_ ? $_->[0] : 'unknown' } @parameters;
	my $values = join ', ', map { _literal(ref $_ ? $_->[1] : $_) } @parameters;
	my $script = 'BEGIN ISOLATION LEVEL READ COMMITTED ' . ($writes ? 'READ WRITE' : 'READ ONLY') . ";\n"
	  . 'SELECT ' . join(', ', map { 'set_config(' . _literal($_) . ', ' . _literal($setting{$_}) . ', true)' } sort keys %setting) . " \\g /dev/null\n"
	  . 'PREPARE main' . (@parameters ? " ($types)" : '') . " AS $request{statement};\n"
	  . ($request{explain} ? 'EXPLAIN (FORMAT JSON) ' : '') . 'EXECUTE main' . (@parameters ? "($values)" : '') . ";\nCOMMIT;\n";
	my ($out, $err);

	IPC::Run::run([ 'psql', '-XAtq', '-F', "\x1e", '-P', 'null=', '-v', 'ON_ERROR_STOP=1', '-v', 'VERBOSITY=verbose', '-d',
			$self->{node}->connstr($self->{database}) . ' user=authenticator' ], '<', \$script, '>', \$out, '2>', \$err);
	return _error($err, $request{role}) if $err =~ /^(?:psql:\S+ )?(?:ERROR|FATAL):/m;
	chomp $out;
	return { status => 200, text => $out } if $request{explain};
	my ($total, $page, $body) = split /\x1e/, $out, -1;
	utf8::decode($body) if defined $body;
	return {
		status => $request{success} // 200,
		total => $total,
		page => $page,
		text => $body,
		rows => $request{is_text} || !defined $body || $body eq '' ? undef : $json->decode($body) };
}

# What a client sees of an error.
sub _error
{
	my ($err, $role) = @_;

	$err =~ /(?:ERROR|FATAL):  (\w{5}): (.*?)\n(?=DETAIL:|HINT:|LINE \d|QUERY:|CONTEXT:|LOCATION:|SCHEMA NAME:|TABLE NAME:|CONSTRAINT NAME:|COLUMN NAME:|\z)/s
	  or die "psql said: $err";
	my %error = (code => $1, message => $2);
	$error{details} = $1 if $err =~ /^DETAIL:  (.*?)\n(?=HINT:|QUERY:|CONTEXT:|LOCATION:)/ms;
	$error{hint} = $1 if $err =~ /^HINT:  (.*?)\n(?=QUERY:|CONTEXT:|LOCATION:)/ms;
	if ($error{code} eq 'PGRST')
	{
		my ($message, $detail) = map { $json->decode($error{$_}) } qw(message details);

		# It answers 500 where a key is missing.
		return { status => 500, code => 'PGRST121', message => $error{message} } if grep { !exists $message->{$_} } qw(code message);
		return { %$message, status => $detail->{status}, headers => $detail->{headers}, mapped => 1 };
	}
	my ($own) = grep { $error{code} =~ $_->[0] } @own_statuses;
	$error{status} = $error{code} eq '42501' ? ($role =~ /anon/ ? 401 : 403) : $own ? $own->[1] : 400;
	return { %error, headers => {}, raw => $err };
}

# A list of columns, or of what is given for them as SQL text (\ 'TEXT').
sub _select
{
	my ($view, $select) = @_;

	return qq{"quota_api"."$view".*} if !$select;
	return join ', ', map { ref $_ ? $$_ : qq{"quota_api"."$view".} . _name($_) } @$select;
}

# Conditions as PostgREST writes them; their values become parameters.
sub _where
{
	my ($view, $where, $parameters) = @_;
	my @terms;

	foreach my $term (@{ $where // [] })
	{
		my ($column, $operator, $value) = @$term;

		if ($operator =~ /^is /) { push @terms, qq{"quota_api"."$view"."$column" $operator}; next }
		push @$parameters, $value;
		my $number = '$' . scalar @$parameters;
		$number = "ANY ($number)" if $operator eq 'in' || $operator =~ s/ any$//;
		$operator = '=' if $operator eq 'in';
		push @terms, qq{"quota_api"."$view"."$column" $operator $number};
	}
	return @terms ? 'WHERE ' . join(' AND ', @terms) : '';
}

my $response = q{nullif(current_setting('response.headers', true), '') AS response_headers, nullif(current_setting('response.status', true), '') AS response_status};

sub _body
{
	my ($format) = @_;

	return q{coalesce(json_agg(_postgrest_t), '[]')} if !defined $format;
	return q{coalesce(json_agg(_postgrest_t)->0, 'null')} if $format eq 'object';
	return q{(SELECT coalesce(string_agg(a.k, ','), '') FROM (SELECT json_object_keys(r)::text AS k FROM (SELECT row_to_json(hh) AS r FROM pgrst_source AS hh LIMIT 1) s) a)
		|| chr(10) || coalesce(string_agg(substring(_postgrest_t::text, 2, length(_postgrest_t::text) - 2), chr(10)), '')};
}

# GET and HEAD: select, where, order, limit, offset, count (exact or planned), embed (SQL text of joins), format (object or csv).
sub get
{
	my ($self, $role, $view, %option) = @_;
	my @parameters;
	my $source = "SELECT " . _select($view, $option{select}) . qq{ FROM "quota_api"."$view" } . ($option{embed} // '') . ' '
	  . _where($view, $option{where}, \@parameters);
	my ($total, $counted) = ('null::bigint', '');

	$source .= " ORDER BY $option{order}" if defined $option{order};
	if (defined $option{limit} || defined $option{offset})
	{
		push @parameters, $option{limit}, $option{offset} // 0;
		$source .= sprintf ' LIMIT $%d OFFSET $%d', @parameters - 1, scalar @parameters;
	}
	if (($option{count} // '') eq 'exact')
	{
		my $where = _where($view, $option{where}, \@parameters);

		$counted = qq{, pgrst_source_count AS (SELECT 1 FROM "quota_api"."$view" $where)};
		$total = '(SELECT pg_catalog.count(*) FROM pgrst_source_count)';
	}
	if (($option{count} // '') eq 'planned')
	{
		my @counted;
		my $where = _where($view, $option{where}, \@counted);

		return $self->send_request(role => $role, method => 'GET', path => "/$view", explain => 1,
			parameters => \@counted, statement => qq{SELECT 1 FROM "quota_api"."$view" $where}, %option{qw(settings claims)});
	}
	return $self->send_request(
		role => $role,
		method => $option{head} ? 'HEAD' : 'GET',
		path => "/$view",
		parameters => \@parameters,
		is_text => $option{head} || ($option{format} // '') eq 'csv',
		statement => "WITH pgrst_source AS ($source) $counted SELECT $total AS total_result_set, pg_catalog.count(_postgrest_t) AS page_total, "
		  . ($option{head} ? q{''::text} : _body($option{format})) . " AS body, $response, '' AS response_inserted FROM (SELECT * FROM pgrst_source) _postgrest_t",
		%option{qw(settings claims)});
}

# What is changed, as PostgREST wraps it; returning: '*' or a list of columns.
sub _change
{
	my ($self, $role, $view, $change, $parameters, %option) = @_;
	my $columns = $option{returning};
	my $inner = $columns ? ($columns eq '*' ? qq{"quota_api"."$view".*} : _select($view, $columns)) : '1';
	my $outer = $columns ? 'SELECT ' . ($columns eq '*' ? qq{"$view".*} : join(', ', map { qq{"$view".} . _name($_) } @$columns)) . qq{ FROM "pgrst_source" AS "$view"} : 'SELECT * FROM pgrst_source';

	return $self->send_request(
		role => $role,
		path => "/$view",
		parameters => $parameters,
		is_text => !$columns,
		statement => "WITH pgrst_source AS ($change RETURNING $inner) SELECT '' AS total_result_set, pg_catalog.count(_postgrest_t) AS page_total, "
		  . ($columns ? _body($option{format}) : q{''::text}) . " AS body, array[]::text[] AS header, $response, '' AS response_inserted FROM ($outer) _postgrest_t",
		%option{qw(method success settings claims raw_claims)});
}

# POST: a row or a list of rows. columns (those of ?columns=), upsert or ignore (the key), default (Prefer: missing=default).
sub post
{
	my ($self, $role, $view, $rows, %option) = @_;
	my $is_list = ref $rows eq 'ARRAY';
	# Without ?columns= those of the first row count.
	my @columns = @{ $option{columns} // [ sort keys %{ ($is_list ? $rows->[0] : $rows) // {} } ] };
	my $types = $self->columns($view);
	my $names = join ', ', map { _name($_) } @columns;
	my $typed = join ', ', map { _name($_) . ' ' . ($types->{$_} // 'text') } @columns;
	my $suffix = $is_list ? 'recordset' : 'record';
	my ($type, $source) = ('json', "json_to_$suffix(pgrst_payload.json_data)");

	if ($option{default})
	{
		my $defaults = $self->_types(qq{SELECT a.attname, pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
			WHERE d.adrelid = 'quota_api.$view'::regclass});
		my $object = join ', ', map { "'$_', $defaults->{$_}" } grep { defined $defaults->{$_} } @columns;

		$type = 'jsonb';
		$source = "jsonb_to_recordset((SELECT jsonb_agg(jsonb_build_object($object) || elem) FROM jsonb_array_elements(pgrst_payload.json_data) elem))";
	}
	my $change = qq{INSERT INTO "quota_api"."$view"($names) SELECT } . join(', ', map { qq{"pgrst_body".} . _name($_) } @columns)
	  . qq{ FROM (SELECT \$1 AS json_data) pgrst_payload, LATERAL (SELECT $names FROM $source AS _($typed)) pgrst_body};
	$change = qq{INSERT INTO "quota_api"."$view" SELECT FROM (SELECT \$1 AS json_data) pgrst_payload WHERE false} if !@columns;
	my @parameters = ([ $type, $option{raw_body} // $json->encode($rows) ]);

	if (defined $option{put})
	{
		push @parameters, $rows->{ $option{put} };
		$change .= qq{ WHERE "pgrst_body"."$option{put}" = \$2};
	}
	my $key = $option{upsert} // $option{put};
	$change .= qq{ ON CONFLICT(} . _name($key) . ') DO UPDATE SET ' . join(', ', map { _name($_) . ' = EXCLUDED.' . _name($_) } @columns) if defined $key;
	$change .= ' ON CONFLICT(' . _name($option{ignore}) . ') DO NOTHING' if defined $option{ignore};
	return $self->_change($role, $view, $change, \@parameters, method => $option{put} ? 'PUT' : 'POST', success => 201, %option);
}

sub patch
{
	my ($self, $role, $view, $where, $row, %option) = @_;
	my $types = $self->columns($view);
	my @columns = sort keys %$row;
	my @parameters = ([ 'json', $option{raw_body} // $json->encode($row) ]);
	my $names = join ', ', map { _name($_) } @columns;
	my $change = qq{UPDATE "quota_api"."$view" SET } . join(', ', map { _name($_) . ' = "pgrst_body".' . _name($_) } @columns)
	  . qq{ FROM (SELECT \$1 AS json_data) pgrst_payload, LATERAL (SELECT $names FROM json_to_record(pgrst_payload.json_data) AS _(}
	  . join(', ', map { _name($_) . ' ' . ($types->{$_} // 'text') } @columns) . ')) pgrst_body ' . _where($view, $where, \@parameters);

	return $self->_change($role, $view, $change, \@parameters, method => 'PATCH', %option);
}

sub delete
{
	my ($self, $role, $view, $where, %option) = @_;
	my @parameters;
	my $change = qq{DELETE FROM "quota_api"."$view" } . _where($view, $where, \@parameters);

	return $self->_change($role, $view, $change, \@parameters, method => 'DELETE', %option);
}

# Calls a function. where, order and so on for one that returns rows; raw_body for a body that is no object.
sub rpc
{
	my ($self, $role, $method, $function, $arguments, %option) = @_;
	my $types = $self->arguments($function);
	my $shape = $self->shape($function);
	my @names = sort keys %{ $arguments // {} };
	my (@parameters, $source);

	if ($method eq 'GET' || !@names && !defined $option{raw_body})
	{
		my $list = join ', ', map { push @parameters, ref $arguments->{$_} ? '{' . join(',', @{ $arguments->{$_} }) . '}' : $arguments->{$_};
			_name($_) . ' := $' . @parameters . '::' . ($types->{$_} // 'text') } @names;

		$source = qq{SELECT "pgrst_call".* FROM "quota_api".} . _name($function) . "($list) pgrst_call";
		$source = qq{SELECT pgrst_call.pgrst_scalar FROM (SELECT "quota_api".} . _name($function) . "($list) pgrst_scalar) pgrst_call" if $shape eq 'scalar';
	}
	else
	{
		my $list = join ', ', map { _name($_) } @names;
		my $typed = join ', ', map { _name($_) . ' ' . ($types->{$_} // 'text') } @names;
		my $call = qq{"quota_api".} . _name($function) . '(' . join(', ', map { _name($_) . ' := pgrst_body.' . _name($_) } @names) . ')';
		my $body = "(SELECT \$1 AS json_data) pgrst_payload, LATERAL (SELECT $list FROM json_to_record(pgrst_payload.json_data) AS _($typed) LIMIT 1) pgrst_body";

		@parameters = ([ 'json', $option{raw_body} // $json->encode($arguments) ]);
		$source = qq{SELECT "pgrst_call".* FROM $body, LATERAL $call pgrst_call};
		$source = qq{SELECT pgrst_call.pgrst_scalar FROM (SELECT $call pgrst_scalar FROM $body) pgrst_call} if $shape eq 'scalar';
	}
	my $body = $shape eq 'rows' ? _body($option{format}) : $shape eq 'row' ? _body('object') : q{coalesce(json_agg(_postgrest_t.pgrst_scalar)->0, 'null')};
	$body = qq{"quota_api"."text/plain"(_postgrest_t.pgrst_scalar)} if ($option{format} // '') eq 'text/plain';
	my @selected = @{ $option{select} // [] };
	my $outer = 'SELECT ' . (@selected ? join(', ', map { qq{"record".} . _name($_) } @selected) : qq{"record".*}) . ' FROM "pgrst_source" AS "record" '
	  . join('', map { push @parameters, $_->[2]; ' WHERE "record".' . _name($_->[0]) . " $_->[1] \$" . @parameters } @{ $option{where} // [] })
	  . (defined $option{order} ? " ORDER BY $option{order}" : '');
	$outer .= sprintf ' LIMIT $%d OFFSET $%d', do { push @parameters, $option{limit}, 0; (@parameters - 1, scalar @parameters) } if defined $option{limit};
	my $volatile = $self->{volatile}{$function} //= $self->{node}->safe_psql($self->{database},
		"SELECT bool_or(p.provolatile = 'v') FROM pg_proc p WHERE p.pronamespace = 'quota_api'::regnamespace AND p.proname = '$function'");

	return $self->send_request(
		role => $role,
		method => $method,
		path => "/rpc/$function",
		# A function that has no effect is called like that.
		only_reads => $volatile ne 't',
		parameters => \@parameters,
		is_text => scalar(($option{format} // '') =~ m{^(?:csv|text/plain)$}),
		statement => "WITH pgrst_source AS ($source) SELECT null::bigint AS total_result_set, "
		  . ($shape eq 'rows' ? 'pg_catalog.count(_postgrest_t)' : 1) . " AS page_total, $body AS body, $response, "
		  . "'' AS response_inserted FROM ($outer) _postgrest_t",
		%option{qw(settings claims raw_claims)});
}

1;
