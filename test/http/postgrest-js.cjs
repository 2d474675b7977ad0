// What postgrest-js does with the API: prints a line "ok WHAT" or "not ok WHAT" for each thing.
// API, OPERATOR and VIEWER come from the environment; the library is found by NODE_PATH.
'use strict';

const assert = require('node:assert/strict');
const { PostgrestClient } = require('@supabase/postgrest-js');

const as = (token) => new PostgrestClient(process.env.API, { headers: { Authorization: `Bearer ${token}` } });
const operator = as(process.env.OPERATOR);
const viewer = as(process.env.VIEWER);

async function step(what, code) {
	try {
		await code();
		console.log(`ok ${what}`);
	} catch (error) {
		console.log(`not ok ${what}`);
		console.log(String(error.message).replace(/^/gm, '# '));
	}
}

// An answer without an error, or the error is thrown.
async function answer(request) {
	const reply = await request;
	assert.equal(reply.error, null, JSON.stringify(reply.error));
	return reply;
}

async function main() {
	const single = { type: 'single', amount: 5, model: 'm', condition: 'is-vip(1)' };

	await step('insert, and what was inserted comes back', async () => {
		const { data, status } = await answer(operator.from('strategies').insert({ ...single, name: 'js-1', title: 'One' }).select().single());
		assert.equal(status, 201);
		assert.equal(data.name, 'js-1');
		assert.equal(data.enabled, true);
		assert.equal(data.condition, 'is-vip(1)');
	});
	await step('bulk insert with differing keys takes the defaults', async () => {
		const rows = [{ ...single, name: 'js-2' }, { ...single, name: 'js-3', title: 'Three', time_zone: 'Asia/Shanghai', enabled: false }];
		const { data } = await answer(operator.from('strategies').insert(rows, { defaultToNull: false }).select('name,title,time_zone,enabled').order('name'));
		assert.deepEqual(data, [
			{ name: 'js-2', title: '', time_zone: 'UTC', enabled: true },
			{ name: 'js-3', title: 'Three', time_zone: 'Asia/Shanghai', enabled: false }]);
	});
	await step('list, filter, order', async () => {
		const { data } = await answer(viewer.from('strategies').select('name').like('name', 'js-%').eq('enabled', true).order('name', { ascending: false }));
		assert.deepEqual(data.map((row) => row.name), ['js-2', 'js-1']);
	});
	await step('or, in, is null', async () => {
		const { data } = await answer(viewer.from('strategies').select('name').in('name', ['js-1', 'js-2', 'js-3']).or('title.eq.One,enabled.is.false').is('periodic_expr', null).order('name'));
		assert.deepEqual(data.map((row) => row.name), ['js-1', 'js-3']);
	});
	await step('range and exact count', async () => {
		const { data, count } = await answer(viewer.from('strategies').select('name', { count: 'exact' }).like('name', 'js-%').order('name').range(1, 1));
		assert.deepEqual(data, [{ name: 'js-2' }]);
		assert.equal(count, 3);
	});
	await step('planned count', async () => {
		const { count } = await answer(viewer.from('executions').select('id', { count: 'planned', head: true }));
		assert.equal(typeof count, 'number');
	});
	await step('maybeSingle of nothing', async () => {
		const { data } = await answer(viewer.from('strategies').select().eq('name', 'js-none').maybeSingle());
		assert.equal(data, null);
	});
	await step('update', async () => {
		const { data } = await answer(operator.from('strategies').update({ amount: 7 }).eq('name', 'js-1').select('amount,version'));
		assert.deepEqual(data, [{ amount: 7, version: 2 }]);
	});
	await step('upsert by name', async () => {
		const { data } = await answer(operator.from('strategies')
			.upsert([{ ...single, name: 'js-1', amount: 8 }, { ...single, name: 'js-4', amount: 9 }], { onConflict: 'name', defaultToNull: false }).select('name,amount'));
		assert.deepEqual(data.sort((a, b) => a.name.localeCompare(b.name)), [{ name: 'js-1', amount: 8 }, { name: 'js-4', amount: 9 }]);
	});
	await step('upsert of users in bulk', async () => {
		const users = Array.from({ length: 500 }, (_, i) => ({ id: `js-user-${i}`, vip: i % 3 }));
		await answer(operator.from('users').upsert(users));
		await answer(operator.from('users').upsert(users.map((user) => ({ ...user, vip: 2 }))));
		const { count } = await answer(viewer.from('users').select('id', { count: 'exact', head: true }).like('id', 'js-user-%').eq('vip', 2));
		assert.equal(count, 500);
	});
	await step('rpc with POST and named arguments', async () => {
		const { data } = await answer(operator.rpc('check_condition', { expression: 'is-vip(1) and' }));
		assert.equal((Array.isArray(data) ? data[0] : data).valid, false);
	});
	await step('rpc with GET', async () => {
		const { data } = await answer(viewer.rpc('describe', { schedule: '0 8 * * *' }, { get: true }));
		assert.equal(typeof data, 'string');
	});
	await step('rpc that returns users is filtered, ordered and limited', async () => {
		const { data } = await answer(viewer.rpc('preview', { condition: 'is-vip(2)' }).select('id').like('id', 'js-user-%').order('id').limit(2));
		assert.deepEqual(data, [{ id: 'js-user-0' }, { id: 'js-user-1' }]);
	});
	await step('embedding', async () => {
		await answer(operator.rpc('scan', { strategy: 'js-4' }));
		const { data } = await answer(viewer.from('executions').select('amount,strategy(name),user(vip)').eq('user_id', 'js-user-1').limit(1).single());
		assert.deepEqual(data, { amount: 9, strategy: { name: 'js-4' }, user: { vip: 2 } });
	});
	await step('an error has code, message, details and hint', async () => {
		const { data, error, status } = await operator.from('strategies').insert({ ...single, name: 'js-5', condition: 'is-vip(' });
		assert.equal(status, 400);
		assert.equal(data, null);
		assert.equal(error.code, '22P02');
		assert.deepEqual(Object.keys(error).filter((key) => ['code', 'details', 'hint', 'message'].includes(key)).sort(), ['code', 'details', 'hint', 'message']);
	});
	await step('an error of a function', async () => {
		const { error, status } = await operator.rpc('scan', { strategy: 'js-none' });
		assert.equal(status, 404);
		assert.equal(error.code, '42704');
	});
	await step('a viewer cannot write', async () => {
		const { error, status } = await viewer.from('strategies').update({ amount: 1 }).eq('name', 'js-1');
		assert.equal(status, 403);
		assert.equal(error.code, '42501');
	});
	await step('csv', async () => {
		const { data } = await answer(viewer.from('strategies').select('name,amount').like('name', 'js-%').order('name').limit(2).csv());
		assert.equal(data, 'name,amount\njs-1,8\njs-2,5');
	});
}

main();
