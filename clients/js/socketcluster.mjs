// A browser runs socketcluster.js as a module without exports, which sets the global; Node and bundlers load it as
// CommonJS, whose exports are the default.
import * as loaded from "./socketcluster.js";

const socketCluster = loaded.default ?? globalThis.socketCluster;
export const { connect } = socketCluster;
export default socketCluster;
