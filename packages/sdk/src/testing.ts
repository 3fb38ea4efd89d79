export { type FakeAnswer, type FakeLicet, type FakeScript, fakeLicet } from "./testing/fake-licet.ts";
export {
  startTestServer,
  type TestCustomer,
  type TestFeature,
  type TestLicense,
  type TestLimit,
  type TestServer,
  type TestServerOptions,
} from "./testing/test-server.ts";
